//! From [`Args`] to [`Config`]: the one place that may say no.

use std::path::{Path, PathBuf};

use shoal_proto::placement::Placement;

use super::{Args, BackendKind, Capacity, Compute, Config, ConfigError, Group, Listeners, Log, Shards};
use crate::backend::cpu::Level;
use crate::limits;

pub(super) fn config(args: Args) -> Result<Config, ConfigError> {
    let model = model_directory(&args.model)?;
    let model_name = model_name(args.model_name.as_deref(), &model)?;
    Ok(Config {
        model_name,
        listen: Listeners { grpc: args.listen, http: args.http, health: args.health_listen },
        group: group(&args)?,
        compute: compute(&args)?,
        capacity: capacity(&args)?,
        log: Log { filter: args.log, format: args.log_format },
        fault: args.fault,
        die_with_parent: args.die_with_parent,
        model,
    })
}

fn refused(flag: &'static str, found: impl Into<String>, allowed: impl Into<String>) -> ConfigError {
    ConfigError::Refused { flag, found: found.into(), allowed: allowed.into() }
}

fn model_directory(uri: &str) -> Result<PathBuf, ConfigError> {
    let path = match uri.split_once("://") {
        Some(("file", path)) if path.starts_with('/') => path,
        None if !uri.is_empty() => uri,
        _ => {
            return Err(refused(
                "--model",
                uri,
                "a worker reads file:///DIR or a directory; nothing is downloaded yet",
            ));
        }
    };
    Ok(PathBuf::from(path))
}

fn model_name(given: Option<&str>, model: &Path) -> Result<String, ConfigError> {
    let name = match given {
        Some(name) => name,
        None => model
            .file_name()
            .and_then(|name| name.to_str())
            .ok_or_else(|| refused("--model-name", "is missing", "the directory's own name cannot be used"))?,
    };
    limits::MODEL_NAME.check_count(name.len())?;
    Ok(name.to_owned())
}

fn compute(args: &Args) -> Result<Compute, ConfigError> {
    let backend = match args.backend.as_str() {
        "auto" | "cpu" => BackendKind::Cpu,
        "strict" => BackendKind::Strict,
        "wgpu" | "cuda" => {
            return Err(refused("--backend", &args.backend, "not in this build; allowed: auto, cpu"));
        }
        other => return Err(refused("--backend", other, "unknown; allowed: auto, cpu, wgpu, cuda")),
    };
    let threads = args.threads.map(|threads| limits::THREADS.check(threads).map(|()| threads as usize)).transpose()?;
    let level = args.cpu_level.as_deref().map(|name| {
        name.parse::<Level>().map_err(|_| refused("--cpu-level", name, "unknown; allowed: scalar, avx2, avx512"))
    });
    Ok(Compute { backend, numerics: args.numerics, threads, level: level.transpose()? })
}

fn capacity(args: &Args) -> Result<Capacity, ConfigError> {
    if let Some(context) = args.context_tokens {
        limits::CONTEXT_TOKENS.check(context)?;
    }
    limits::MAX_CONCURRENT_SEQUENCES.check(args.max_concurrent_sequences)?;
    if let Some(tokens) = args.kv_cache_tokens {
        limits::KV_CACHE_TOKENS.check(tokens)?;
    }
    limits::STEP_TOKENS.check(args.step_tokens)?;
    limits::QUEUE.check(args.queue)?;
    Ok(Capacity {
        context_tokens: args.context_tokens,
        max_concurrent_sequences: args.max_concurrent_sequences,
        kv_cache_tokens: args.kv_cache_tokens,
        step_tokens: args.step_tokens,
        queue: args.queue,
    })
}

fn group(args: &Args) -> Result<Group, ConfigError> {
    limits::SIZE.check(args.size)?;
    limits::EPOCH.check(args.epoch as f64)?;
    if args.rank >= args.size {
        return Err(refused("--rank", args.rank.to_string(), format!("allowed: 0 to {}", args.size - 1)));
    }
    let shards = if args.size == 1 { alone(args)? } else { Some(shards(args)?) };
    Ok(Group { rank: args.rank, size: args.size, epoch: args.epoch, shards })
}

/// A group of one talks to nobody. What its pod says about shards must still be sound.
fn alone(args: &Args) -> Result<Option<Shards>, ConfigError> {
    security(args)?;
    if let Some(text) = &args.placement {
        placement(text, 1)?;
    }
    if args.peers.len() > 1 {
        return Err(refused("--peers", format!("names {} shards", args.peers.len()), "--size is 1"));
    }
    Ok(None)
}

fn shards(args: &Args) -> Result<Shards, ConfigError> {
    security(args)?;
    let size = args.size as usize;
    let needed = || format!("needed because --size is {size}");
    let listen = args.shard_listen.ok_or_else(|| refused("--shard-listen", "is missing", needed()))?;
    let text = args.placement.as_deref().ok_or_else(|| refused("--placement", "is missing", needed()))?;
    if args.peers.len() != size {
        let found = format!("names {} shards", args.peers.len());
        return Err(refused("--peers", found, format!("allowed: host:port of all {size}, by rank")));
    }
    if let Some(bad) = args.peers.iter().find(|peer| !is_host_and_port(peer)) {
        return Err(refused("--peers", bad, "allowed: host:port"));
    }
    let tls = args.shard_tls.clone();
    Ok(Shards { listen, tls, peers: args.peers.clone(), placement: placement(text, size)? })
}

fn placement(text: &str, size: usize) -> Result<Placement, ConfigError> {
    let placement = Placement::from_base64(text)?;
    if placement.size() != size {
        let found = format!("is for {} shards", placement.size());
        return Err(refused("--placement", found, format!("--size is {size}")));
    }
    Ok(placement)
}

/// Plaintext between shards stays on this host unless somebody took responsibility.
fn security(args: &Args) -> Result<(), ConfigError> {
    if let Some(directory) = args.shard_tls.as_ref().filter(|_| args.insecure_shard_traffic) {
        let found = directory.display().to_string();
        return Err(refused("--shard-tls", found, "not together with --insecure-shard-traffic"));
    }
    let allowed = args.shard_tls.is_some() || args.insecure_shard_traffic;
    match args.shard_listen {
        Some(address) if !address.ip().is_loopback() && !allowed => Err(refused(
            "--shard-listen",
            address.to_string(),
            "not loopback, and the traffic between shards is plaintext; give --shard-tls DIR, or say \
             --insecure-shard-traffic to allow it",
        )),
        _ => Ok(()),
    }
}

fn is_host_and_port(peer: &str) -> bool {
    peer.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && host.len() <= 253 && port.parse::<u16>().is_ok_and(|port| port != 0)
    })
}
