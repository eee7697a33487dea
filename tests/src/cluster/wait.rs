//! Waiting for what the cluster will do, by watching it: never by sleeping.

use std::fmt::Debug;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kube::runtime::wait;
use kube::{Api, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Longer than anything a healthy cluster needs, shorter than a test may take.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `holds` is true of the object `name` (`None`: it does not exist) and returns it.
///
/// # Errors
/// After [`PATIENCE`]: the message says what was awaited and shows the object as it is.
pub async fn await_condition<K>(
    api: &Api<K>,
    name: &str,
    what: &str,
    holds: impl Fn(Option<&K>) -> bool,
) -> Result<Option<K>>
where
    K: Clone + Debug + Send + Serialize + DeserializeOwned + Resource + 'static,
{
    match tokio::time::timeout(PATIENCE, wait::await_condition(api.clone(), name, holds)).await {
        Ok(object) => object.with_context(|| format!("watching {name}")),
        Err(_) => {
            let object = api.get_opt(name).await?;
            bail!("{name} never became: {what}; it is\n{}", serde_yaml::to_string(&object)?)
        }
    }
}

/// Waits until the object `name` exists and `holds` is true of it.
///
/// # Errors
/// As [`await_condition`].
pub async fn await_object<K>(api: &Api<K>, name: &str, what: &str, holds: impl Fn(&K) -> bool) -> Result<K>
where
    K: Clone + Debug + Send + Serialize + DeserializeOwned + Resource + 'static,
{
    let object = await_condition(api, name, what, |object| object.is_some_and(&holds)).await?;
    object.with_context(|| format!("{name} is gone"))
}

/// Waits until the object `name` is gone.
///
/// # Errors
/// As [`await_condition`].
pub async fn await_gone<K>(api: &Api<K>, name: &str) -> Result<()>
where
    K: Clone + Debug + Send + Serialize + DeserializeOwned + Resource + 'static,
{
    await_condition(api, name, "gone", |object| object.is_none()).await.map(drop)
}

/// Asks `probe` again and again until it gives a value: for what cannot be watched as one object.
///
/// # Errors
/// After [`PATIENCE`], and whatever `probe` fails with.
pub async fn await_value<T>(what: &str, mut probe: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(value) = probe().await? {
            return Ok(value);
        }
        if tokio::time::Instant::now() >= deadline {
            bail!("never happened: {what}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
