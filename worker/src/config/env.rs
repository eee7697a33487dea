//! Variables `SHOAL_*` stand for flags that are absent. Never reads the process's environment itself.

use std::ffi::OsString;

use clap::{ArgAction, CommandFactory as _, Parser as _};

use super::{Args, ConfigError, Environment};

/// Adds a flag for every set variable whose flag is absent.
pub(super) fn parse(args: impl IntoIterator<Item = String>, environment: Environment<'_>) -> Result<Args, ConfigError> {
    let given: Vec<String> = args.into_iter().collect();
    let mut all = vec![OsString::from("shoal-worker")];
    for arg in Args::command().get_arguments() {
        let Some(long) = arg.get_long() else { continue };
        let is_this = |word: &str| word.strip_prefix("--").and_then(|word| word.split('=').next()) == Some(long);
        if given.iter().any(|word| is_this(word)) {
            continue;
        }
        let name = variable(long);
        let Some(value) = environment(&name) else { continue };
        if arg.get_action().takes_values() {
            all.push(format!("--{long}={value}").into());
        } else if matches!(arg.get_action(), ArgAction::SetTrue) && truth(&name, &value)? {
            all.push(format!("--{long}").into());
        }
    }
    all.extend(given.into_iter().map(OsString::from));
    Ok(Args::try_parse_from(all)?)
}

/// The variable that stands for `--long`.
fn variable(long: &str) -> String {
    format!("SHOAL_{}", long.to_uppercase().replace('-', "_"))
}

fn truth(name: &str, value: &str) -> Result<bool, ConfigError> {
    match value {
        "true" | "1" => Ok(true),
        "false" | "0" | "" => Ok(false),
        _ => {
            let message = format!("{name} is {value:?}; allowed: true, 1, false, 0\n");
            Err(Args::command().error(clap::error::ErrorKind::InvalidValue, message).into())
        }
    }
}
