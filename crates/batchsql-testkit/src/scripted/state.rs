//! Owns what the sink remembers: what it was told to do, and what it has done.
//! Must not know what either means.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use batchsql_core::{DynRow, ErrorClass, PoolState, SessionEnd, Step as PositionStep, Value};
use tokio::sync::Semaphore;

use super::positions::Positions;
use super::step::Step;
use crate::model::Model;

type Poison = Box<dyn Fn(&DynRow) -> bool + Send + Sync>;
type Reference = Box<dyn Fn(&DynRow) -> Option<i64> + Send + Sync>;
type Identity = Box<dyn Fn(&DynRow) -> String + Send + Sync>;
type Returns = Box<dyn Fn(&DynRow, &str) -> Value + Send + Sync>;

/// What all clones share.
pub(super) struct Shared {
    pub(super) state: Mutex<State>,
    pub(super) released: Semaphore,
}

/// What a call reads and changes under one lock.
#[derive(Default)]
pub(super) struct State {
    pub(super) script: VecDeque<Step>,
    pub(super) acquire_script: VecDeque<Step>,
    pub(super) prepare_script: VecDeque<Step>,
    pub(super) poison: Option<(ErrorClass, Poison)>,
    pub(super) reference: Option<Reference>,
    pub(super) reports_rows: bool,
    pub(super) identity: Option<Identity>,
    pub(super) returns: Option<Returns>,
    pub(super) broken: BTreeMap<String, ErrorClass>,
    pub(super) broken_writes: BTreeMap<String, ErrorClass>,
    pub(super) slow: BTreeMap<String, Duration>,
    pub(super) batches: Vec<Vec<DynRow>>,
    pub(super) model: Model,
    pub(super) writes: usize,
    pub(super) prepares: usize,
    pub(super) max_concurrency: Option<usize>,
    pub(super) sorts_by_key: bool,
    pub(super) grows_batches: bool,
    pub(super) is_not_atomic: bool,
    pub(super) pool: Option<PoolState>,
    pub(super) sessions: u64,
    pub(super) has_no_sessions: bool,
    pub(super) end_script: VecDeque<Result<SessionEnd, ErrorClass>>,
    pub(super) ended: HashSet<u64>,
    pub(super) late: Vec<(u64, Option<PositionStep>, Vec<DynRow>)>,
    pub(super) keeps_positions: bool,
    pub(super) positions: Positions,
    /// A row that was applied before is not refused by a script.
    pub(super) accepts_again: bool,
    /// A defect on purpose: a position moves although its rows are refused.
    pub(super) moves_positions_alone: bool,
    pub(super) claim_script: VecDeque<Step>,
    pub(super) late_write_limit: Option<Duration>,
    pub(super) is_working: Option<bool>,
    pub(super) knows_sessions: bool,
    pub(super) looks: usize,
}
