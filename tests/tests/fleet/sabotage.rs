//! The comparisons can go red: each of these breaks one thing on purpose and is seen by the bounds of parity, over a
//! group of two.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use shoal_proto::placement::Placement;
use shoal_tests::fleet::Spec;
use shoal_tests::fleet::fixture::{Copy, Distance, distance, expected, experts};

use crate::{answers_of, even};

async fn distance_of(name: &str, spec: &Spec) -> Result<Distance> {
    let cases = expected(name)?.cases;
    Ok(distance(&cases, &answers_of(spec, &cases).await?))
}

async fn is_seen(name: &str, copy: Copy) -> Result<()> {
    let spec = Spec::new(copy.path(), Placement::even(experts(name)?, 2)?);
    let found = distance_of(name, &spec).await?;
    println!("{name}: {found:?}");
    ensure!(!found.is_within_bounds(), "the sabotage was not seen: {found:?}");
    Ok(())
}

async fn config_is_seen(name: &str, change: impl FnOnce(&mut Value)) -> Result<()> {
    is_seen(name, Copy::of(name)?.with_config(change)?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_broken_is_green() -> Result<()> {
    let found = distance_of("v3-yarn", &even("v3-yarn", 2)?).await?;
    ensure!(found.is_within_bounds(), "{found:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_expert_is_seen() -> Result<()> {
    is_seen("v3-yarn", Copy::of("v3-yarn")?.with_zeros("layers.2.mlp.experts.5.down_proj.weight")?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_routed_scale_off_by_one_percent_is_seen() -> Result<()> {
    config_is_seen("v3-yarn", |config| config["routed_scaling_factor"] = (2.5 * 1.01).into()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zeroed_correction_bias_is_seen() -> Result<()> {
    is_seen("v3-yarn", Copy::of("v3-yarn")?.with_zeros("e_score_correction_bias")?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ignored_groups_are_seen() -> Result<()> {
    config_is_seen("v3-yarn", |config| {
        config["n_group"] = 1.into();
        config["topk_group"] = 1.into();
    })
    .await
}

/// The softmax scale loses m(mscale_all_dim)², and cosine and sine keep the factor 1 that they had.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_yarn_factor_is_seen() -> Result<()> {
    config_is_seen("v3-yarn", |config| {
        let scaling = &mut config["rope_scaling"];
        scaling["mscale"] = json!(0.0);
        scaling["mscale_all_dim"] = json!(0.0);
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_eps_of_1e_5_is_seen() -> Result<()> {
    config_is_seen("small-embed", |config| config["rms_norm_eps"] = 1e-5.into()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rope_pairs_in_the_wrong_layout_are_seen() -> Result<()> {
    config_is_seen("v3-yarn", |config| config["rope_interleave"] = false.into()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_returns_zeros_is_seen() -> Result<()> {
    let found = distance_of("v3-yarn", &even("v3-yarn", 2)?.with_fault(1, "zero-partials")).await?;
    ensure!(!found.is_within_bounds(), "the sabotage was not seen: {found:?}");
    Ok(())
}
