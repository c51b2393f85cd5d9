//! Owns which runs there are, and which faults each of them has at which time: a function of the options and the seed.
//! Must not know how a run is carried out.

use std::time::Duration;

use clap::ValueEnum;

use super::fault::{Fault, Layer};
use super::job::{Pool, Sabotage};
use crate::database::DatabaseName;

/// How often a writer is killed in a run of that fault.
const KILLS: u64 = 3;
/// How long a mixed run has faults.
const MIXED: Duration = Duration::from_secs(40);
/// Fault durations of mixed runs, in milliseconds.
const MIXED_LASTS: std::ops::Range<u64> = 200..5_000;

/// A fault and its time, from the moment when the writer has written its first rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Timed {
    pub(super) fault: Fault,
    pub(super) begin: Duration,
    pub(super) end: Duration,
}

/// What a run does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) database: DatabaseName,
    /// The fault in reports, or `mixed`.
    pub(super) name: String,
    pub(super) number: u32,
    pub(super) seed: u64,
    pub(super) pool: Pool,
    pub(super) is_durable: bool,
    pub(super) exactly_once: bool,
    pub(super) at_least_once: bool,
    pub(super) sabotage: Option<Sabotage>,
    pub(super) in_namespace: bool,
    pub(super) timeline: Vec<Timed>,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub(super) struct Wishes {
    pub(super) seed: u64,
    pub(super) runs: u32,
    pub(super) pool: Option<Pool>,
    pub(super) is_durable: bool,
    pub(super) exactly_once: bool,
    pub(super) at_least_once: bool,
    pub(super) sabotage: Option<Sabotage>,
    pub(super) in_namespace: bool,
    pub(super) is_mixed: bool,
}

/// The runs of a database.
pub(super) fn runs(database: DatabaseName, faults: &[Fault], wishes: &Wishes) -> Vec<Plan> {
    let mut plans = Vec::new();
    let faults: Vec<Fault> = faults.iter().copied().filter(|fault| fault.missing_on(database).is_none()).collect();
    if faults.is_empty() {
        return plans;
    }
    let each: Vec<Option<Fault>> =
        if wishes.is_mixed { vec![None] } else { faults.iter().copied().map(Some).collect() };
    for fault in each {
        // The runs of a fault take turns, so that two of them have both.
        let begins_with_user = fastrand::Rng::with_seed(mixed(wishes.seed, database, fault, u32::MAX)).bool();
        for number in 0..wishes.runs {
            // The same for the same seed, whatever else is selected.
            let mut random = fastrand::Rng::with_seed(mixed(wishes.seed, database, fault, number));
            let timeline = match fault {
                Some(fault) => single(fault, &mut random),
                None => several(&faults, &mut random),
            };
            plans.push(Plan {
                database,
                name: fault.map_or_else(|| "mixed".to_owned(), Fault::name),
                number,
                seed: random.u64(..),
                pool: match (database, wishes.pool) {
                    // Its sink takes no pool.
                    (DatabaseName::Redis, _) => Pool::Own,
                    (_, Some(pool)) => pool,
                    (_, None) if begins_with_user == number.is_multiple_of(2) => Pool::User,
                    (_, None) => Pool::Own,
                },
                is_durable: wishes.is_durable,
                exactly_once: wishes.exactly_once,
                at_least_once: wishes.at_least_once,
                sabotage: wishes.sabotage,
                in_namespace: wishes.in_namespace && database != DatabaseName::Sqlite,
                timeline,
            });
        }
    }
    plans
}

fn mixed(seed: u64, database: DatabaseName, fault: Option<Fault>, number: u32) -> u64 {
    let fault = Fault::value_variants().iter().position(|known| Some(*known) == fault).map_or(0, |at| at as u64 + 1);
    let parts = [database as u64, fault, number.into()];
    parts.into_iter().fold(seed, |seed, part| fastrand::Rng::with_seed(seed ^ (part << 32)).u64(..))
}

fn single(fault: Fault, random: &mut fastrand::Rng) -> Vec<Timed> {
    let mut begin = millis(random, 300..1_000);
    let times = if fault == Fault::WriterKilled { KILLS } else { 1 };
    let mut timeline = Vec::new();
    for _ in 0..times {
        let end = begin + fault.lasts();
        timeline.push(Timed { fault, begin, end });
        begin = end + millis(random, 100..1_500);
    }
    timeline
}

/// Faults that overlap, at most one of each group at a time.
fn several(faults: &[Fault], random: &mut fastrand::Rng) -> Vec<Timed> {
    let mut timeline = Vec::new();
    for group in 0..3 {
        let of_group: Vec<Fault> = faults.iter().copied().filter(|fault| self::group(*fault) == Some(group)).collect();
        let mut at = millis(random, 300..6_000);
        while let Some(fault) = random.choice(&of_group).copied().filter(|_| at < MIXED) {
            let end = at + millis(random, MIXED_LASTS);
            timeline.push(Timed { fault, begin: at, end });
            at = end + millis(random, 1_000..9_000);
        }
    }
    timeline.sort_by_key(|timed| timed.begin);
    timeline
}

/// Faults that exclude each other. An administrator cannot work on a server that is down; a disk is only small if all of the
/// run is on it.
pub(super) fn group(fault: Fault) -> Option<u32> {
    match fault.layer() {
        Layer::Server | Layer::Database => Some(0),
        Layer::Network => Some(1),
        Layer::Writer => Some(2),
        Layer::Disk => None,
    }
}

fn millis(random: &mut fastrand::Rng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(random.u64(range))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wishes(seed: u64, is_mixed: bool) -> Wishes {
        Wishes {
            seed,
            runs: 2,
            pool: None,
            is_durable: false,
            exactly_once: false,
            at_least_once: false,
            sabotage: None,
            in_namespace: false,
            is_mixed,
        }
    }

    #[test]
    fn the_seed_decides_everything() {
        let all = Fault::value_variants();
        for database in DatabaseName::ALL {
            for is_mixed in [false, true] {
                let plans = runs(database, all, &wishes(7, is_mixed));
                assert_eq!(plans, runs(database, all, &wishes(7, is_mixed)));
                assert_ne!(plans, runs(database, all, &wishes(8, is_mixed)));
            }
        }
        // A run is the same when it is selected alone.
        let all = runs(DatabaseName::Mysql, all, &wishes(7, false));
        let one = runs(DatabaseName::Mysql, &[Fault::ReadOnly], &wishes(7, false));
        assert_eq!(one.len(), 2);
        assert_ne!(one[0].pool, one[1].pool);
        assert!(one.iter().all(|plan| all.contains(plan)));
    }

    #[test]
    fn faults_that_exclude_each_other_do_not_overlap() {
        for seed in 0..50 {
            for plan in runs(DatabaseName::Postgres, Fault::value_variants(), &wishes(seed, true)) {
                assert!(plan.timeline.len() > 5, "{plan:?}");
                for (at, one) in plan.timeline.iter().enumerate() {
                    for other in &plan.timeline[at + 1..] {
                        let overlap = other.begin < one.end && group(one.fault) == group(other.fault);
                        assert!(!overlap, "{one:?} {other:?}");
                    }
                }
            }
        }
    }
}
