//! Traffic between shards that never leaves 127.0.0.1 needs no key pair: `--shard-tls DIR` becomes
//! `--insecure-shard-traffic`, and the Secret that DIR would be is left out. Never touches another flag or volume.

use k8s_openapi::api::core::v1::{Volume, VolumeMount};

use super::{LocalizeError, Localizer, expand};
use crate::controller::build::SHARD_TLS_MOUNT;

/// A flag of the worker, followed by its value, and the one that stands for both here.
const SHARD_TLS: &str = "--shard-tls";
const INSECURE: &str = "--insecure-shard-traffic";

/// Whether `volume` is the Secret with the shards' key pair, mounted where they look for it.
pub(super) fn is_shard_tls(volume: &Volume, mount: &VolumeMount) -> bool {
    volume.secret.is_some() && mount.mount_path == SHARD_TLS_MOUNT
}

impl Localizer<'_> {
    /// Every argument, expanded and looked up, but for the one that names the key pair.
    pub(super) fn arguments(&mut self, args: &[String]) -> Result<(), LocalizeError> {
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            if arg == SHARD_TLS {
                // Its value.
                args.next();
                self.command.args.push(INSECURE.to_owned());
                self.command.substituted.insert(format!("{SHARD_TLS} -> {INSECURE}: it stays on 127.0.0.1"));
                continue;
            }
            let expanded = expand(arg, &self.command.env);
            let arg = self.value(&expanded)?;
            self.command.args.push(arg);
        }
        Ok(())
    }
}
