//! Crashes: at random, at every call, and with faults; and that a disk that ignores syncs is found out.

use std::{collections::BTreeSet, time::Duration};

use batchsql_log::SyncPolicy;
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};

use crate::{
    complaints::open,
    model::{Action, STREAMS, config, options, run, run_with},
    sim::{Call, Fault, Sim},
};

fn append() -> impl Strategy<Value = Action> {
    let block = (0..STREAMS, 1_u32..4, 0_usize..1_500);
    prop::collection::vec(block, 1..5).prop_map(Action::Append)
}

fn group() -> impl Strategy<Value = Vec<(usize, u32, usize)>> {
    prop::collection::vec((0..STREAMS, 1_u32..4, 0_usize..1_500), 1..5)
}

fn action() -> impl Strategy<Value = Action> {
    let fault = prop_oneof![Just(Fault::Crash), Just(Fault::Crash), Just(Fault::Io), Just(Fault::NoSpace)];
    prop_oneof![
        6 => append(),
        5 => group().prop_map(Action::Group),
        2 => group().prop_map(Action::GroupAgain),
        4 => (0..STREAMS, 1_usize..6).prop_map(|(stream, blocks)| Action::Settle(stream, blocks)),
        1 => (0..STREAMS, 0_usize..10).prop_map(|(stream, index)| Action::SettleLater(stream, index)),
        1 => (0..STREAMS, any::<bool>()).prop_map(|(stream, is_aside)| Action::SetAside(stream, is_aside)),
        2 => Just(Action::Sync),
        2 => (0_usize..8, fault).prop_map(|(after, fault)| Action::Fault(after, fault)),
        2 => Just(Action::LosePower),
        1 => Just(Action::Kill),
        1 => Just(Action::Close),
    ]
}

fn without_power_loss() -> impl Strategy<Value = Action> {
    action().prop_filter("only the process ends", |action| !matches!(action, Action::LosePower | Action::Fault(..)))
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn acknowledged_blocks_survive(seed in any::<u64>(), actions in prop::collection::vec(action(), 1..60)) {
        if let Err(problem) = run(&Sim::new(seed), SyncPolicy::Always, &actions) {
            prop_assert!(false, "{}", problem);
        }
    }

    #[test]
    fn with_the_policy_os_they_survive_the_end_of_the_process(
        seed in any::<u64>(),
        actions in prop::collection::vec(without_power_loss(), 1..60),
    ) {
        let mut actions = actions;
        // The model ends with a power loss; all is settled or synced by then.
        actions.push(Action::Sync);
        if let Err(problem) = run(&Sim::new(seed), SyncPolicy::Os, &actions) {
            prop_assert!(false, "{}", problem);
        }
    }
}

fn on_a_small_disk() -> impl Strategy<Value = Action> {
    // Less than a segment starts with, than a block needs, and than a segment has.
    let left = prop_oneof![2 => Just(None), 2 => (0_u64..400).prop_map(Some), 3 => (0_u64..9_000).prop_map(Some)];
    prop_oneof![3 => action(), 1 => left.prop_map(Action::Left)]
}

proptest! {
    #![proptest_config(config())]

    /// What is settled gives way, kept or not, and the rest survives.
    #[test]
    fn acknowledged_blocks_survive_on_a_disk_that_is_full_at_times(
        seed in any::<u64>(),
        keeps in any::<bool>(),
        actions in prop::collection::vec(on_a_small_disk(), 1..80),
    ) {
        let sim = Sim::new(seed);
        let keep_for = Duration::from_secs(if keeps { 3_600 } else { 0 });
        if let Err(problem) = run_with(&sim, options(&sim).keep_for(keep_for), &actions) {
            prop_assert!(false, "{}", problem);
        }
    }
}

/// Several segments, settled rows with holes, removed segments, rows that are set aside, and a clean close.
fn story() -> Vec<Action> {
    let group = |stream: usize, length: usize| {
        Action::Append(vec![(stream, 2, length), ((stream + 1) % STREAMS, 1, length / 2), (2, 1, 40)])
    };
    let mut actions = Vec::new();
    for round in 0..6 {
        actions.extend([group(0, 1_200), Action::Group(vec![(1, 2, 700), (0, 1, 30), (2, 1, 500)]), group(1, 900)]);
        actions.push(Action::GroupAgain(vec![(2, 1, 600), (0, 3, 40)]));
        actions.push(Action::SettleLater(0, round + 2));
        actions.extend([Action::Settle(0, 3), Action::Settle(1, 3)]);
        if round == 2 {
            actions.push(Action::SetAside(2, true));
        }
        if round >= 2 {
            actions.push(Action::Sync);
        }
    }
    actions.extend([Action::Settle(0, 100), Action::Settle(1, 100), Action::Sync, group(0, 100), Action::Close]);
    actions.extend([group(1, 500), Action::Settle(2, 4), Action::Sync, Action::Kill, group(1, 500)]);
    actions
}

#[test]
fn the_story_makes_every_kind_of_call() {
    let sim = Sim::new(1);
    let model = run(&sim, SyncPolicy::Always, &story()).expect("the story is true");
    assert!(model.acknowledged > 30);
    let kinds: BTreeSet<Call> = sim.calls().into_iter().collect();
    let all = [Call::Create, Call::Rename, Call::Remove, Call::SyncFolder, Call::Write, Call::Sync];
    assert!(all.iter().all(|call| kinds.contains(call)), "{kinds:?}");
    assert!(sim.files().iter().any(|path| path.to_string_lossy().contains("side-")), "{:?}", sim.files());
}

/// Fail points: each call of the story is the last one, or fails.
fn fault_at_every_call(fault: Fault, seeds: u64) {
    let sim = Sim::new(1);
    run(&sim, SyncPolicy::Always, &story()).expect("the story is true");
    let calls = sim.calls().len();
    let mut hits = 0;
    for number in 0..calls {
        for seed in 0..seeds {
            let sim = Sim::new(seed * 1_000 + number as u64 + 1);
            sim.fail_after(number, fault);
            if let Err(problem) = run(&sim, SyncPolicy::Always, &story()) {
                panic!("{fault:?} at call {number} ({:?}), seed {seed}: {problem}", sim.calls().get(number));
            }
            hits += sim.hits();
        }
    }
    // The writer is a thread: a run may make a few calls more or less.
    assert!(hits * 10 >= calls * seeds as usize * 9, "{hits} faults at {calls} calls");
}

#[test]
fn a_crash_at_every_call() {
    fault_at_every_call(Fault::Crash, 3);
}

#[test]
fn an_error_at_every_call() {
    fault_at_every_call(Fault::Io, 1);
}

#[test]
fn a_full_disk_at_every_call() {
    fault_at_every_call(Fault::NoSpace, 1);
}

/// The first problem that random runs find on a disk that was tampered with.
fn find_problem(tamper: fn(&Sim)) -> Option<String> {
    let mut runner = TestRunner::deterministic();
    let runs = prop::collection::vec(action(), 20..60);
    (0..100).find_map(|seed| {
        let actions = runs.new_tree(&mut runner).expect("a list of actions").current();
        let sim = Sim::new(seed + 1);
        tamper(&sim);
        run(&sim, SyncPolicy::Always, &actions).err()
    })
}

#[test]
fn a_disk_that_ignores_syncs_is_found_out() {
    let problem = find_problem(Sim::ignore_syncs).expect("the test must find that nothing was synced");
    assert!(["lost", "cannot open", "gap", "damage"].iter().any(|word| problem.contains(word)), "{problem}");
}

#[test]
fn a_disk_that_ignores_syncs_of_folders_is_found_out() {
    let problem = find_problem(Sim::ignore_folder_syncs).expect("the test must find that no name was synced");
    assert!(["lost", "cannot open", "gap", "damage"].iter().any(|word| problem.contains(word)), "{problem}");
}

/// The segment that is to keep the state of the log cannot be synced: the older ones stay.
#[test]
fn the_state_survives_a_segment_that_cannot_be_synced() {
    let mut hits = 0;
    for fault in [Fault::Io, Fault::NoSpace, Fault::Crash] {
        for number in 0..12 {
            let sim = Sim::new(number as u64 + 1);
            // The start finds settled rows that it removes, and has nothing to write.
            let opened = open(options(&sim).keep_for(Duration::from_secs(60)));
            opened.append_many(1..=3, 100);
            opened.settle(1, 3);
            let end = opened.log.close().wait();
            drop(opened);
            end.expect("closed");
            let opened = open(options(&sim));
            sim.fail_after(number, fault);
            let _ = opened.log.sync().wait();
            hits += sim.hits();
            sim.stop();
            drop(opened);
            sim.lose_power();
            sim.clear_faults();
            let opened = open(options(&sim));
            let first = opened.append(4, 100);
            assert_eq!(first, 4, "{fault:?} at call {number}: rows 1 to 3 were given out before");
        }
    }
    assert!(hits > 9, "{hits} faults");
}

/// A segment was given up and removed, and that was not synced. The next process must not make another one that the power loss
/// leaves beside it.
#[test]
fn a_segment_that_was_removed_does_not_come_back_beside_a_newer_one() {
    let mut crashes = 0;
    for seed in 1..=40 {
        for call in 0..4 {
            let sim = Sim::new(seed);
            let opened = open(options(&sim));
            opened.append_many(1..=7, 1_000);
            sim.set_capacity(Some(sim.bytes()));
            let error = opened.log.append(opened.block(8, 1_000)).expect("not known yet").wait().expect_err("no space");
            assert!(error.is_full(), "{error}");
            sim.set_capacity(None);
            // The new segment of the close: create, write, sync, and the sync of the folder, which fails.
            sim.fail_after(3, Fault::Io);
            assert!(opened.log.close().wait().is_err() && sim.hits() == 1);
            drop(opened);
            sim.kill();
            sim.fail_after(call, Fault::Crash);
            drop(batchsql_log::Log::open(options(&sim)));
            crashes += sim.hits() - 1;
            sim.stop();
            sim.lose_power();
            sim.clear_faults();
            assert_eq!(open(options(&sim)).unsettled(), [1, 2, 3, 4, 5, 6, 7], "seed {seed}, a crash at call {call}");
        }
    }
    assert_eq!(crashes, 160);
}
