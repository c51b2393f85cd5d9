//! Owns which faults a run has, and when: at random from a seed, one after the other.
//! Must not know how they are caused.

use std::time::Duration;

use clap::ValueEnum;
use fastrand::Rng;

use super::job::PIN;

/// What happens to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub enum Fault {
    /// `kill -9` of a worker; another one is started.
    WorkerKilled,
    /// SIGSTOP of a worker for longer than its partitions stay with it, then SIGCONT.
    WorkerPaused,
    /// `kill -9` of NATS, and a start on its files.
    NatsKilled,
    /// `kill -9` of the database, and a start on its files.
    DatabaseKilled,
}

impl Fault {
    pub(super) const ALL: [Self; 4] = [Self::WorkerKilled, Self::WorkerPaused, Self::NatsKilled, Self::DatabaseKilled];

    /// Its name in reports.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::WorkerKilled => "worker-killed",
            Self::WorkerPaused => "worker-paused",
            Self::NatsKilled => "nats-killed",
            Self::DatabaseKilled => "database-killed",
        }
    }

    fn lasts(self, random: &mut Rng) -> Duration {
        match self {
            Self::WorkerPaused => PIN + Duration::from_millis(random.u64(500..2_500)),
            _ => Duration::from_millis(random.u64(100..1_500)),
        }
    }
}

/// A fault at its time, counted from the end of the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Timed {
    pub(super) fault: Fault,
    pub(super) pause: Duration,
    pub(super) lasts: Duration,
    /// Decides which worker.
    pub(super) choice: usize,
}

/// The faults of a run: each of these kinds once in a random order, then others of them until the time is over.
pub(super) fn plan(kinds: &[Fault], time: Duration, seed: u64) -> Vec<Timed> {
    let mut random = Rng::with_seed(seed);
    let mut first = kinds.to_vec();
    random.shuffle(&mut first);
    let (mut faults, mut total) = (Vec::new(), Duration::ZERO);
    let mut first = first.into_iter();
    loop {
        let fault = first.next();
        if fault.is_none() && (total >= time || kinds.is_empty()) {
            return faults;
        }
        let fault = fault.unwrap_or_else(|| kinds[random.usize(..kinds.len())]);
        let timed = Timed {
            fault,
            pause: Duration::from_millis(random.u64(300..1_500)),
            lasts: fault.lasts(&mut random),
            choice: random.usize(..),
        };
        total += timed.pause + timed.lasts;
        faults.push(timed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_comes_and_a_seed_repeats_them() {
        for seed in 0..50 {
            let faults = plan(&Fault::ALL, Duration::from_secs(20), seed);
            assert_eq!(faults, plan(&Fault::ALL, Duration::from_secs(20), seed));
            let mut first: Vec<Fault> = faults[..4].iter().map(|timed| timed.fault).collect();
            first.sort_unstable();
            assert_eq!(first, Fault::ALL);
            let pauses = faults.iter().filter(|timed| timed.fault == Fault::WorkerPaused);
            assert!(pauses.clone().all(|timed| timed.lasts > PIN), "a worker that is paused loses its partitions");
            let total: Duration = faults.iter().map(|timed| timed.pause + timed.lasts).sum();
            assert!(total >= Duration::from_secs(20) && total < Duration::from_secs(40), "{total:?}");
        }
        assert_eq!(plan(&Fault::ALL, Duration::ZERO, 1).len(), 4);
    }

    #[test]
    fn a_run_may_have_some_kinds_only() {
        let kinds = [Fault::WorkerKilled, Fault::WorkerPaused];
        let faults = plan(&kinds, Duration::from_secs(60), 1);
        assert!(faults.len() > 4 && faults.iter().all(|timed| kinds.contains(&timed.fault)), "{faults:?}");
        assert_eq!(plan(&kinds, Duration::ZERO, 1).len(), 2);
        assert_eq!(plan(&[], Duration::from_secs(60), 1), []);
        for fault in Fault::ALL {
            assert_eq!(fault.to_possible_value().unwrap().get_name(), fault.name());
        }
    }
}
