//! Owns the measurement of this process's memory.
//! Must not know cases or metrics names.

use batchsql::metrics::MemoryUsage;
use serde::Deserialize;
use tikv_jemalloc_ctl::{epoch, stats, stats_print};

/// Memory in physical use by this process, in bytes.
pub fn resident() -> Option<u64> {
    memory_stats::memory_stats().map(|stats| stats.physical_mem as u64)
}

/// The most memory that this process has had since [`reset_peak`], or since its start where the system cannot reset it; in bytes, if
/// the system reports it.
pub fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// The peak is that of what follows. It does nothing where the system cannot do it: then the peak is too high.
pub fn reset_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// Physical memory of the machine in bytes, if the system reports it.
pub fn machine() -> Option<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Figures of the operating system and the allocator. The allocator's figures exist only if jemalloc
/// is the process's allocator, as in the suite's binary.
pub fn usage() -> MemoryUsage {
    let advanced = epoch::advance().is_ok();
    let figure = |value: Result<usize, _>| value.ok().filter(|v| advanced && *v > 0).map(|v| v as u64);
    let totals = allocator_totals();
    MemoryUsage {
        alloc: figure(stats::allocated::read()),
        total_alloc: totals.as_ref().map(|totals| totals.allocated),
        sys: figure(stats::mapped::read()),
        current: resident(),
        gc_count: totals.map(|totals| totals.purges),
    }
}

/// Allocations since the start of the process, if jemalloc is its allocator.
pub fn allocations() -> Option<u64> {
    // Advancing the epoch updates the statistics from the caches of threads.
    epoch::advance().ok()?;
    allocator_totals().map(|totals| totals.allocations)
}

/// Figures since the start of the process.
struct Totals {
    allocations: u64,
    /// Bytes allocated, freed or not; a lower bound, see below.
    allocated: u64,
    /// Sweeps that gave unused pages back.
    purges: u64,
}

// jemalloc has these figures only in its statistics dump; these are the parts that are read.
#[derive(Deserialize)]
struct Dump {
    jemalloc: Jemalloc,
}

#[derive(Deserialize)]
struct Jemalloc {
    arenas: Sizes,
    #[serde(rename = "stats.arenas")]
    stats: Arenas,
}

#[derive(Deserialize)]
struct Sizes {
    bin: Vec<Size>,
    lextent: Vec<Size>,
}

#[derive(Deserialize)]
struct Size {
    size: u64,
}

#[derive(Deserialize)]
struct Arenas {
    merged: Merged,
}

#[derive(Deserialize)]
struct Merged {
    dirty_npurge: u64,
    muzzy_npurge: u64,
    bins: Vec<Count>,
    large: Count,
}

/// Requests, including those served by a thread cache.
#[derive(Deserialize)]
struct Count {
    nrequests: u64,
}

fn allocator_totals() -> Option<Totals> {
    let mut dump = Vec::new();
    let mut options = stats_print::Options::default();
    options.json_format = true;
    options.skip_per_arena = true;
    stats_print::stats_print(&mut dump, options).ok()?;
    let Jemalloc { arenas, stats } = serde_json::from_slice::<Dump>(&dump).ok()?.jemalloc;
    let merged = stats.merged;
    let small: u64 = arenas.bin.iter().zip(&merged.bins).map(|(size, count)| size.size * count.nrequests).sum();
    // jemalloc does not report the sizes of freed large allocations, so the smallest size is used for all.
    let large = arenas.lextent.first().map_or(0, |size| size.size) * merged.large.nrequests;
    Some(Totals {
        allocations: merged.bins.iter().map(|count| count.nrequests).sum::<u64>() + merged.large.nrequests,
        allocated: small + large,
        purges: merged.dirty_npurge + merged.muzzy_npurge,
    })
}

#[cfg(test)]
mod tests {
    #[cfg(target_os = "linux")]
    use batchsql_testserver::process::{self, Process, skip};

    use super::*;

    /// In a process of its own: other tests of this one use memory too.
    #[test]
    #[cfg(target_os = "linux")]
    fn a_peak_is_that_since_the_reset() {
        if let Err(error) = std::fs::write("/proc/self/clear_refs", "5") {
            return skip(&format!("this system cannot reset the peak: /proc/self/clear_refs: {error}"));
        }
        if peak().is_none() {
            return skip("this system does not report the peak");
        }
        let mut command = process::command("memory::tests::peaks_of_a_process", &[]);
        let lines = Process::start(&mut command).unwrap().finish();
        let figures: Vec<u64> = lines.iter().map(|line| line.parse().unwrap()).collect();
        let [before, with, after] = figures[..] else { panic!("{lines:?}") };
        assert!(with >= before && with > BYTES as u64, "{before} {with}");
        assert!(after < with, "{after} {with}");
    }

    #[cfg(target_os = "linux")]
    const BYTES: usize = 64 << 20;

    #[test]
    #[ignore = "a program, started by another test"]
    #[cfg(target_os = "linux")]
    fn peaks_of_a_process() {
        let Some(_) = process::arguments() else { return };
        process::tell(peak().unwrap());
        drop(std::hint::black_box(vec![1_u8; BYTES]));
        process::tell(peak().unwrap());
        reset_peak();
        process::tell(peak().unwrap());
    }

    #[test]
    fn this_process_uses_memory() {
        assert!(resident().unwrap() > 1 << 20);
        assert!(machine().is_none_or(|bytes| bytes > resident().unwrap()));
    }
}
