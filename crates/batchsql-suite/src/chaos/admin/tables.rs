//! Owns the SQL of the tables of a run, as far as databases share it.
//! Must not know connections.

use super::Scene;
use crate::chaos::check::FoundRow;
use crate::chaos::load::{RowId, Table};

/// The words that differ between databases.
pub(super) struct Words {
    /// The column that numbers the rows of the history.
    pub(super) number: &'static str,
    /// The text after a list of columns.
    pub(super) tail: &'static str,
}

/// The statements that create the three tables. Their names are made here, and need no quotes.
pub(super) fn create(scene: &Scene, words: &Words) -> Vec<String> {
    let [plain, keyed, once] = scene.names.written();
    let table = |name: &str, key: &str| {
        format!(
            "CREATE TABLE {name} (id BIGINT NOT NULL{key}, producer BIGINT NOT NULL, seq BIGINT NOT NULL, quality INT NOT NULL \
             CHECK (quality >= 0), pad TEXT NOT NULL){}",
            words.tail
        )
    };
    vec![table(plain, ""), table(keyed, " PRIMARY KEY"), table(once, " PRIMARY KEY")]
}

/// The statement that creates the history.
pub(super) fn create_history(scene: &Scene, words: &Words) -> String {
    let history = &scene.names.history;
    format!(
        "CREATE TABLE {history} ({}, id BIGINT NOT NULL, producer BIGINT NOT NULL, seq BIGINT NOT NULL){}",
        words.number, words.tail
    )
}

/// The statements that take the tables away.
pub(super) fn take_away(scene: &Scene) -> Vec<String> {
    let gone = Scene { gone: scene.gone + 1, ..scene.clone() };
    let rename = |name: &str| format!("ALTER TABLE {name} RENAME TO {}", gone.incarnation(name, scene.gone));
    scene.names.written().map(rename).into()
}

/// A statement for each table.
pub(super) fn each(scene: &Scene, statement: impl Fn(&str) -> String) -> Vec<String> {
    scene.names.written().map(statement).into()
}

/// The queries of each table in each incarnation: key, producer and sequence.
pub(super) fn queries(scene: &Scene) -> Vec<(Table, String)> {
    let names =
        [(Table::Plain, &scene.names.plain), (Table::Keyed, &scene.names.keyed), (Table::Once, &scene.names.once)];
    let query = |name: String| format!("SELECT id, producer, seq FROM {name}");
    let of = |(table, name): (Table, &String)| {
        scene.incarnations(name).into_iter().map(move |name| (table, query(name))).collect::<Vec<_>>()
    };
    names.into_iter().flat_map(of).collect()
}

/// The query of the history.
pub(super) fn history(scene: &Scene) -> String {
    format!("SELECT id, producer, seq FROM {} ORDER BY number", scene.names.history)
}

/// A row of a result.
pub(super) fn found(id: i64, producer: i64, sequence: i64) -> anyhow::Result<FoundRow> {
    Ok(FoundRow { key: id, row: RowId { producer: producer.try_into()?, sequence: sequence.try_into()? } })
}
