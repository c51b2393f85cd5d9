//! Owns the measurement of rules that depend on the stored row, against a plain update of the same rows.
//! Must not know other workloads.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use batchsql::{BatchSql, ColumnType, Conflict, DynRow, Expr, OutcomeKind, PipelineConfig, Schema, SchemaBuilder};

use super::figures::{Figure, Measurement, Plan, summarise};
use crate::database::{Database, DatabaseName, TableSpec};

const TABLE: &str = "batchsql_suite_rules";
/// Keys of the rows that are updated.
const KEYS: usize = 20_000;
/// Keys of the counters that many rows share.
const HOT_KEYS: usize = 100;
/// A column that the rows have no value for.
const CHANGED_AT: &str = "changed_at";
/// The version of the rows that are stored before the measurement.
const STORED: i64 = 1_000_000;
const PRODUCERS: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Contender {
    Update,
    NewerWins,
    NewerLoses,
    Add,
    HotUpdate,
    HotAdd,
    UpdateOnly,
    Delete,
    Returning,
    Now,
    Greatest,
    Keep,
    Insert,
    InsertReturning,
}

use Contender::{
    Add, Delete, Greatest, HotAdd, HotUpdate, Insert, InsertReturning, Keep, NewerLoses, NewerWins, Now, Returning,
    Update, UpdateOnly,
};

const CONTENDERS: [(Contender, &str); 14] = [
    (Update, "update (baseline)"),
    (NewerWins, "only if newer, all win"),
    (NewerLoses, "only if newer, half lose"),
    (Add, "add"),
    (UpdateOnly, "update only"),
    (Delete, "delete"),
    (HotUpdate, "update, 100 keys"),
    (HotAdd, "add, 100 keys"),
    (Returning, "update, a value returned"),
    (Now, "now in another column"),
    (Greatest, "greatest"),
    (Keep, "keep"),
    (Insert, "insert, no rule"),
    (InsertReturning, "insert, a value returned"),
];

impl Contender {
    fn schema(self) -> Result<Schema> {
        let update = || Conflict::update(["id"]);
        let conflict = match self {
            Update | HotUpdate => update(),
            NewerWins | NewerLoses => update().only_if_newer("version"),
            Add | HotAdd => update().set("amount", Expr::add()),
            UpdateOnly => Conflict::update_only(["id"]),
            Now => update().set(CHANGED_AT, Expr::now()),
            Greatest => update().set("version", Expr::greatest()),
            Keep => update().set("amount", Expr::keep()),
            Insert => Conflict::none(),
            Returning => return Ok(builder(update()).returning("version", ColumnType::I64).build()?),
            InsertReturning => return Ok(builder(Conflict::none()).returning("version", ColumnType::I64).build()?),
            Delete => return Ok(table(update())?.deletion()?),
        };
        table(conflict)
    }

    fn key(self, n: usize) -> i64 {
        if matches!(self, Insert | InsertReturning) {
            return (KEYS + n) as i64;
        }
        let keys = if matches!(self, HotUpdate | HotAdd) { HOT_KEYS } else { KEYS };
        // A prime step visits the keys in a scattered order.
        (n.wrapping_mul(7_919) % keys) as i64
    }

    fn row(self, schema: &Schema, n: usize) -> Result<DynRow> {
        let row = schema.row().set("id", self.key(n))?;
        if self == Delete {
            return Ok(row.finish()?);
        }
        let version = match self {
            NewerLoses if n.is_multiple_of(2) => 0,
            _ => STORED + 1 + n as i64,
        };
        Ok(row.set("name", "a name of usual length")?.set("amount", n as i64)?.set("version", version)?.finish()?)
    }

    /// Rows of one measurement: each key can be deleted once.
    fn rows(self, rows: usize) -> usize {
        if self == Delete { rows.min(KEYS) } else { rows }
    }
}

fn table(conflict: Conflict) -> Result<Schema> {
    Ok(builder(conflict).build()?)
}

fn builder(conflict: Conflict) -> SchemaBuilder {
    let schema = Schema::builder(TABLE).column("id", ColumnType::I64).column("name", ColumnType::Text);
    let schema = schema.column("amount", ColumnType::I64).column("version", ColumnType::I64);
    schema.on_conflict(conflict)
}

/// Measures each rule on a database.
///
/// # Errors
/// The database fails, or rows are missing.
pub async fn rules(plan: Plan, name: DatabaseName, database: &dyn Database) -> Result<Vec<Figure>> {
    let mut rounds = Vec::new();
    for round in 0..plan.rounds {
        let mut measured = Vec::new();
        for (contender, text) in CONTENDERS {
            eprintln!("rules on {}, {text}, round {} of {}", name.name(), round + 1, plan.rounds);
            measured.push(Measurement { rate: measure(contender, plan.rows, database).await?, allocations: None });
        }
        rounds.push(measured);
    }
    let names: Vec<&str> = CONTENDERS.iter().map(|(_, name)| *name).collect();
    Ok(summarise(&format!("rules, {}", name.name()), &names, &rounds))
}

/// Rows per second, from the first submit to the last commit.
async fn measure(contender: Contender, rows: usize, database: &dyn Database) -> Result<f64> {
    let plain = builder(Conflict::none()).nullable(CHANGED_AT, ColumnType::TimestampTz).build()?;
    let (schema, rows) = (contender.schema()?, contender.rows(rows));
    database.create(&TableSpec::new(plain.clone(), &["id"])).await?;
    let mut config = PipelineConfig::default();
    config.flush_interval = Duration::from_millis(100);
    let fill = BatchSql::builder(database.sink()).config(config.clone()).start()?;
    let stored = |id: usize| {
        let row = plain.row().set("id", id as i64)?.set("name", "a name of usual length")?;
        Ok(row.set("amount", 0_i64)?.set("version", STORED)?.finish()?)
    };
    fill.submit_all((0..KEYS).map(stored).collect::<Result<Vec<DynRow>>>()?).await?;
    ensure!(fill.close(Duration::from_secs(60)).await.balance.written() == KEYS as u64, "the table was not filled");
    let parts: Vec<Vec<DynRow>> = (0..PRODUCERS)
        .map(|part| (part..rows).step_by(PRODUCERS).map(|n| contender.row(&schema, n)).collect())
        .collect::<Result<_>>()?;
    let db = BatchSql::builder(database.sink()).config(config).start()?;
    db.prepare(&schema).await?;
    let begin = Instant::now();
    let mut producers = tokio::task::JoinSet::new();
    for part in parts {
        let db = db.clone();
        producers.spawn(async move { db.submit_all(&part).await });
    }
    while let Some(accepted) = producers.join_next().await {
        accepted??;
    }
    let report = db.close(Duration::from_secs(120)).await;
    let took = begin.elapsed();
    let counts = report.balance.outcomes;
    ensure!(
        report.balance.failed() == 0 && report.balance.accepted == rows as u64,
        "rows were lost: {}",
        report.balance
    );
    let ignored = counts.get(OutcomeKind::Ignored) > 0;
    ensure!(ignored == (contender == NewerLoses), "another rule was measured: {}", report.balance);
    Ok(rows as f64 / took.as_secs_f64())
}
