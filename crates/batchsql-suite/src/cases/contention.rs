//! Owns the case in which several writers update the same rows.
//! Must not know databases.

use std::time::Duration;

use anyhow::{Context, Result};
use async_trait::async_trait;
use batchsql::{BatchSql, TypedRow};

use super::{Case, Expected, Load, Settings};
use crate::database::{Database, TableSpec};
use crate::digest::{Canonical, Digest};
use crate::rows::{Account, Texts};

/// Pipelines that write at the same time: one alone keeps the rows of a key in one batch at a time.
const PIPELINES: usize = 4;
/// How long the other pipelines may drain.
const DRAIN: Duration = Duration::from_secs(120);

/// Checks that each key holds exactly one of the written versions, unmixed. Which version depends on the
/// database.
async fn check_versions(database: &dyn Database, keys: i64, is_over: bool) -> Result<()> {
    let mut found = 0;
    let mut mixed = None;
    let mut texts = Texts::default();
    let mut check = |values: &[Canonical<'_>]| {
        found += 1;
        let [Canonical::Int(id), Canonical::Int(version), ..] = values else {
            mixed = Some("a row without key or version".to_owned());
            return;
        };
        let (id, version) = (*id as i64, *version as i64);
        let (mut is, mut should) = (Digest::default(), Digest::default());
        is.add_canonical(values.iter().copied());
        should.add_values(texts.account(id, version).values());
        // Upwards the key is derived from the version, downwards it is counted from the end.
        let is_of_key = (version - id) % keys == 0 || (version + id + 1) % keys == 0;
        if is != should || version < 0 || !is_of_key {
            mixed = Some(format!("key {id} holds values that no row had at version {version}"));
        }
    };
    database.read(Account::type_schema(), &mut check).await?;
    if let Some(problem) = mixed {
        anyhow::bail!("{problem}");
    }
    anyhow::ensure!(is_over || found == keys, "{found} keys are in the table instead of {keys}");
    Ok(())
}

/// Number of keys that all writers share: few enough that every batch conflicts with the others.
fn keys(load: &Load) -> i64 {
    (load.settings.pipeline.flush_size as i64 * 2).min(load.settings.rows_per_worker as i64).max(1)
}

pub(super) struct ConcurrentUpserts;

#[async_trait]
impl Case for ConcurrentUpserts {
    fn description(&self) -> &'static str {
        "Four pipelines, as in four processes, update the same keys at the same time, half of the workers from the \
         first key to the last, half from the last to the first. No row may fail, not even by a deadlock. A last pass \
         writes every key once more; exactly its rows must be in the table."
    }

    fn tables(&self) -> Vec<TableSpec> {
        vec![Account::table()]
    }

    fn adjust(&self, settings: &mut Settings) {
        settings.note("pipelines", PIPELINES);
        // Each pipeline has workers of both directions.
        settings.workers = settings.workers.max(2 * PIPELINES);
        settings.note("workers", settings.workers);
    }

    async fn drive(&self, load: &Load, database: &dyn Database) -> Result<Expected> {
        let others = (1..PIPELINES).map(|_| load.another_pipeline()).collect::<Result<Vec<BatchSql>>>()?;
        let keys = keys(load);
        let wrote = load.workers(|load, worker| {
            let (pipeline, upwards) = (worker as usize / 2 % PIPELINES, worker % 2 == 0);
            let other = pipeline.checked_sub(1).map(|number| others[number].clone());
            async move {
                let mut texts = Texts::default();
                for n in 0..load.settings.rows_per_worker as i64 {
                    if load.is_over() {
                        break;
                    }
                    let key = if upwards { n % keys } else { keys - 1 - n % keys };
                    let account = texts.account(key, n);
                    match &other {
                        None => load.submit(&account).await?,
                        Some(other) => {
                            other.submit(&account).await.context("a row was not accepted")?;
                            load.count(1);
                        }
                    }
                }
                Ok(())
            }
        });
        let wrote = wrote.await;
        let mut expected = Expected::default();
        for other in others {
            expected.elsewhere.push(other.close(DRAIN).await);
        }
        wrote?;
        load.db.flush().await?;
        check_versions(database, keys, load.is_over()).await?;
        let (mut texts, mut digest) = (Texts::default(), Digest::default());
        for key in 0..keys {
            // Also after an interruption, because only this pass determines the content.
            let account = texts.account(key, -1);
            load.submit(&account).await?;
            digest.add_values(account.values());
        }
        expected.tables = vec![(Account::type_schema().clone(), digest)];
        Ok(expected)
    }
}
