//! The arguments of a worker: every one expanded and looked up, but for two whose meaning is the machine's.
//!
//! Traffic between shards that never leaves 127.0.0.1 needs no key pair: `--shard-tls DIR` becomes
//! `--insecure-shard-traffic`, and the Secret that DIR would be is left out. Where the pod asks for no CPU, `--threads` is
//! what the table says instead of the one core that a cluster would set aside.

use k8s_openapi::api::core::v1::{Volume, VolumeMount};

use super::{LocalizeError, Localizer, expand};
use crate::controller::build::SHARD_TLS_MOUNT;

/// Flags of the worker, each followed by its value, and the one that stands for the first and its value here.
const SHARD_TLS: &str = "--shard-tls";
const THREADS: &str = "--threads";
const INSECURE: &str = "--insecure-shard-traffic";

/// Whether `volume` is the Secret with the shards' key pair, mounted where they look for it.
pub(super) fn is_shard_tls(volume: &Volume, mount: &VolumeMount) -> bool {
    volume.secret.is_some() && mount.mount_path == SHARD_TLS_MOUNT
}

impl Localizer<'_> {
    pub(super) fn arguments(&mut self, args: &[String]) -> Result<(), LocalizeError> {
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match (arg.as_str(), self.table.threads) {
                (SHARD_TLS, _) => {
                    // Its value.
                    args.next();
                    self.command.args.push(INSECURE.to_owned());
                    self.command.substituted.insert(format!("{SHARD_TLS} -> {INSECURE}: it stays on 127.0.0.1"));
                }
                (THREADS, Some(threads)) => {
                    let written = args.next().map_or("", String::as_str);
                    self.command.args.extend([THREADS.to_owned(), threads.to_string()]);
                    let line = format!("{THREADS} {written} -> {threads}: the cores of this machine ÷ all workers");
                    self.command.substituted.insert(line);
                }
                _ => {
                    let expanded = expand(arg, &self.command.env);
                    let arg = self.value(&expanded)?;
                    self.command.args.push(arg);
                }
            }
        }
        Ok(())
    }
}
