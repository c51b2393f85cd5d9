//! Owns the kills of a test: how many, and when a program is killed.
//! Must not know what a program does.

use std::process::Command;
use std::time::Duration;

use crate::process::Process;
use crate::random::Random;

/// The kills of one test, at times that are the same for the same seed as far as the machine allows it.
#[derive(Debug)]
pub struct Kills {
    /// How many programs are killed.
    pub count: u64,
    /// To be named by a failure, which it repeats.
    pub seed: u64,
    /// What is decided at random.
    pub random: Random,
}

impl Kills {
    /// `count` kills of a normal run, with a new seed. The variables `BATCHSQL_KILLS` and `BATCHSQL_SEED` ask for others; both
    /// are printed.
    ///
    /// # Panics
    /// A variable is no number.
    pub fn of_run(count: u64) -> Self {
        let count = variable("BATCHSQL_KILLS").unwrap_or(count);
        let seed = variable("BATCHSQL_SEED").unwrap_or_else(|| u64::from(std::process::id()));
        println!("BATCHSQL_SEED={seed} BATCHSQL_KILLS={count}");
        Self::new(count, seed)
    }

    /// The same in every run.
    pub fn new(count: u64, seed: u64) -> Self {
        Self { count, seed, random: Random::new(seed) }
    }

    /// Starts a program and kills it (SIGKILL): after one of these numbers of lines, chosen at random, and a random time below
    /// `pause`. Calls `between` after each line that is waited for. Returns all lines that it has printed.
    ///
    /// # Panics
    /// The program cannot be started, prints too few lines, or ends by itself.
    #[track_caller]
    pub fn kill(
        &mut self,
        program: &mut Command,
        lines: &[usize],
        pause: Duration,
        mut between: impl FnMut(&mut Random),
    ) -> Vec<String> {
        let mut process = Process::start(program).expect("the program can be started");
        let mut told = Vec::new();
        for _ in 0..self.random.one_of(lines) {
            told.push(process.line());
            between(&mut self.random);
        }
        let pause = u64::try_from(pause.as_micros()).expect("a test does not pause for years");
        std::thread::sleep(Duration::from_micros(self.random.below(pause)));
        told.extend(process.kill());
        told
    }
}

fn variable(name: &str) -> Option<u64> {
    Some(std::env::var(name).ok()?.parse().expect("the variable is a number"))
}
