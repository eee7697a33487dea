//! This machine as the only node.

use super::NodeCapacity;

/// Memory and CPUs of this machine, within the limits of its control group; no devices.
#[must_use]
pub fn this_machine() -> NodeCapacity {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    NodeCapacity {
        name: "this machine".to_owned(),
        memory_bytes: memory(),
        cpu_millis: u64::try_from(cpus).unwrap_or(1).saturating_mul(1000),
        ..NodeCapacity::default()
    }
}

fn memory() -> u64 {
    let total = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    let files = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let limits = files.iter().filter_map(|file| std::fs::read_to_string(file).ok()?.trim().parse().ok());
    limits.chain(total).min().unwrap_or(0)
}

fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_total_is_read_in_kibibytes() {
        assert_eq!(super::total("MemTotal:       1024 kB\nMemFree: 1 kB\n"), Some(1 << 20));
        assert_eq!(super::total("MemFree: 1 kB\n"), None);
    }
}
