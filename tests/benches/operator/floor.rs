//! The floor: the objects that the operator would make, made by a client that decides nothing.
//!
//! Pods, Services, Secrets, policies, budgets and statuses are copies of what the operator itself made of one model, under
//! other names. Events are left out.

use std::fmt::Debug;
use std::time::Instant;

use anyhow::{Context, Result};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use shoal_operator::crd::ModelDeployment;
use shoal_tests::cluster::Cluster;
use tokio::sync::OnceCell;

use crate::served::{NAMESPACE, clean, create, delete_pods, model, parallel, served};
use crate::shoal::Running;
use crate::{groups, table};

/// What is made beside the pods and two statuses of each model.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Beside {
    /// What the operator makes: two Services, a Secret, a policy, a budget where there are several groups.
    All,
    /// As much as LeaderWorkerSet makes: one Service.
    Service,
}

/// What one model is made of.
struct Mould {
    pod: Value,
    services: Vec<Value>,
    secret: Value,
    policy: Value,
    /// Of models of several groups.
    budget: Value,
    status: Value,
}

static MOULD: OnceCell<Mould> = OnceCell::const_new();

async fn mould(client: &Client) -> Result<&'static Mould> {
    let cast = async || {
        let operator = Running::start().await?;
        create(client, &[model("mould", 2)?]).await?;
        served(client, 4, 1).await?;
        let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
        let pod = pods.list(&ListParams::default()).await?.items.pop().context("a pod")?;
        let services = made::<Service>(client).await?;
        let (secrets, policies) = (made::<Secret>(client).await?, made::<NetworkPolicy>(client).await?);
        let budgets = made::<PodDisruptionBudget>(client).await?;
        let models: Api<ModelDeployment> = Api::namespaced(client.clone(), NAMESPACE);
        let mut status = models.get("mould").await?.status.context("a status")?;
        status.groups.truncate(1);
        operator.stop().await?;
        clean(client).await?;
        let services = services.iter().map(bare).collect::<Result<_>>()?;
        let (secret, policy) =
            (bare(secrets.first().context("a Secret")?)?, bare(policies.first().context("a policy")?)?);
        let budget = bare(budgets.first().context("a budget")?)?;
        anyhow::Ok(Mould { pod: bare(&pod)?, services, secret, policy, budget, status: serde_json::to_value(status)? })
    };
    MOULD.get_or_try_init(cast).await
}

/// The pod of a model as the template of another operator, which names and addresses its pods itself.
pub(crate) async fn pod_of_a_rival(client: &Client) -> Result<Value> {
    let mut spec = mould(client).await?.pod["spec"].clone();
    if let Some(spec) = spec.as_object_mut() {
        spec.retain(|field, _| !["hostname", "subdomain", "restartPolicy"].contains(&field.as_str()));
    }
    Ok(spec)
}

/// What the operator made of one kind.
async fn made<K>(client: &Client) -> Result<Vec<K>>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let ours = ListParams::default().labels(shoal_operator::names::label::MODEL);
    Ok(Api::namespaced(client.clone(), NAMESPACE).list(&ours).await?.items)
}

/// Without what the server adds.
fn bare(object: &impl serde::Serialize) -> Result<Value> {
    let whole = serde_json::to_value(object)?;
    let (metadata, mut spec) = (&whole["metadata"], whole["spec"].clone());
    if let Some(spec) = spec.as_object_mut() {
        let headless = spec.get("clusterIP").is_some_and(|address| address == "None");
        spec.retain(|field, _| field != "nodeName" && (headless || !field.starts_with("clusterIP")));
    }
    let kept = ["name", "labels", "annotations", "ownerReferences"];
    let metadata: serde_json::Map<_, _> = kept.iter().map(|key| ((*key).to_owned(), metadata[*key].clone())).collect();
    Ok(match &whole["data"] {
        Value::Null => json!({"metadata": metadata, "spec": spec}),
        data => json!({"metadata": metadata, "data": data, "type": whole["type"]}),
    })
}

/// The same for another model: names, labels and selectors change, and the owner's uid.
fn recast<K: DeserializeOwned>(object: &Value, owner: &ModelDeployment, name: Option<&str>) -> Result<K> {
    let mut text = object.to_string().replace("\"mould", &format!("\"{}", owner.name_any()));
    text = text.replace(":mould-", &format!(":{}-", owner.name_any()));
    let mut value: Value = serde_json::from_str(&text)?;
    value["metadata"]["ownerReferences"][0]["uid"] = json!(owner.uid());
    if let Some(name) = name {
        value["metadata"]["name"] = json!(name);
        if value["spec"]["hostname"].is_string() {
            value["spec"]["hostname"] = json!(name);
        }
    }
    Ok(serde_json::from_value(value)?)
}

async fn make(client: &Client, owners: &[ModelDeployment], groups: usize, beside: Beside) -> Result<()> {
    let mould = mould(client).await?;
    let services: Api<Service> = Api::namespaced(client.clone(), NAMESPACE);
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let models: Api<ModelDeployment> = Api::namespaced(client.clone(), NAMESPACE);
    let made = |service: &&Value| beside == Beside::All || service["metadata"]["name"] == "mould";
    let all: Vec<&Value> = mould.services.iter().filter(made).collect();
    let of_owners = owners.iter().flat_map(|owner| all.iter().map(move |service| (owner, *service)));
    let create = of_owners.map(async |(owner, service)| {
        Ok(services.create(&PostParams::default(), &recast(service, owner, None)?).await.map(drop)?)
    });
    parallel(create).await?;
    let (secrets, policies): (Api<Secret>, Api<NetworkPolicy>) =
        (Api::namespaced(client.clone(), NAMESPACE), Api::namespaced(client.clone(), NAMESPACE));
    let create = owners.iter().filter(|_| beside == Beside::All).map(async |owner| {
        let name = format!("{}-0a1b2c", owner.name_any());
        secrets.create(&PostParams::default(), &recast(&mould.secret, owner, Some(&name))?).await?;
        Ok(policies.create(&PostParams::default(), &recast(&mould.policy, owner, None)?).await.map(drop)?)
    });
    parallel(create).await?;
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(client.clone(), NAMESPACE);
    let create = owners.iter().filter(|_| groups > 1).map(async |owner| {
        let mut budget: PodDisruptionBudget = recast(&mould.budget, owner, None)?;
        let least = i32::try_from(2 * groups - 1)?;
        budget.spec.get_or_insert_default().min_available = Some(IntOrString::Int(least));
        Ok(budgets.create(&PostParams::default(), &budget).await.map(drop)?)
    });
    parallel(create).await?;
    let of_groups = owners.iter().flat_map(|owner| (0..2 * groups).map(move |number| (owner, number)));
    let create = of_groups.map(async |(owner, number)| {
        let name = format!("{}-0a1b2c-g{}-e1-r{}", owner.name_any(), number / 2, number % 2);
        Ok(pods.create(&PostParams::default(), &recast(&mould.pod, owner, Some(&name))?).await.map(drop)?)
    });
    parallel(create).await?;
    for round in 0..2 {
        let mut status = mould.status.clone();
        status["replicas"] = json!(round);
        let patch = Patch::Merge(json!({"status": status}));
        let patch = &patch;
        let all = owners.iter().map(async |owner| {
            Ok(models.patch_status(&owner.name_any(), &PatchParams::default(), patch).await.map(drop)?)
        });
        parallel(all).await?;
    }
    Ok(())
}

async fn measure(objects: usize, groups: usize, beside: Beside) -> Result<f64> {
    let client = Cluster::get().await?.client();
    mould(&client).await?;
    let wanted = (0..objects).map(|number| model(&format!("m{number}"), groups)).collect::<Result<Vec<_>>>()?;
    let began = Instant::now();
    let owners = create(&client, &wanted).await?;
    // Watched from the beginning, as the operator is: the lists cost the server the same.
    tokio::try_join!(make(&client, &owners, groups, beside), served(&client, 2 * objects * groups, 0))?;
    Ok(began.elapsed().as_secs_f64())
}

pub(crate) async fn many_objects() -> Result<()> {
    table::floor("objects of one group of 2", measure(groups(), 1, Beside::All).await?);
    clean(&Cluster::get().await?.client()).await
}

pub(crate) async fn many_with_a_service_each() -> Result<()> {
    table::floor("as much as LeaderWorkerSet makes of them", measure(groups(), 1, Beside::Service).await?);
    clean(&Cluster::get().await?.client()).await
}

pub(crate) async fn one_object() -> Result<()> {
    let client = Cluster::get().await?.client();
    table::floor("one object of groups of 2", measure(1, groups(), Beside::All).await?);
    table::floor("scale to 0", delete_pods(&client).await?);
    clean(&client).await
}
