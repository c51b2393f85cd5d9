//! Owns the faults: their names, what they do, how long they last, and on which databases they do not exist.
//! Must not know how a fault is caused.

use std::time::Duration;

use clap::ValueEnum;

use crate::database::DatabaseName;

/// A fault that a run causes under load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
#[allow(missing_docs, reason = "described in the table below")]
pub enum Fault {
    ServerKilled,
    ServerPaused,
    ConnectionsReset,
    RepliesLost,
    HalfOpen,
    SessionsLeft,
    #[value(name = "silence-5s")]
    Silence5s,
    #[value(name = "silence-33s")]
    Silence33s,
    #[value(name = "delay-40ms")]
    Delay40ms,
    #[value(name = "delay-500ms")]
    Delay500ms,
    #[value(name = "delay-5s")]
    Delay5s,
    Bandwidth,
    PoolExhausted,
    SessionsTerminated,
    RowLocked,
    TableLocked,
    ReadOnly,
    DiskFull,
    TableRecreated,
    ColumnAdded,
    RightRevoked,
    PasswordWrong,
    WriterKilled,
}

/// What a fault is done to. In a mixed run at most one fault of each is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Layer {
    Server,
    Network,
    Database,
    Disk,
    Writer,
}

/// What is known of a fault.
struct Entry {
    fault: Fault,
    layer: Layer,
    /// How long it lasts, in milliseconds.
    lasts: u64,
    what: &'static str,
    /// Where it does not exist, and why.
    not_on: &'static [(DatabaseName, &'static str)],
}

use DatabaseName::{Redis, Sqlite};
const NO_SERVER: (DatabaseName, &str) = (Sqlite, "SQLite has no server");
const NO_NETWORK: (DatabaseName, &str) = (Sqlite, "SQLite has no network");
const NO_USERS: (DatabaseName, &str) = (Sqlite, "SQLite has no users or rights");
const NO_TABLES: (DatabaseName, &str) = (Redis, "Redis has no tables, columns or locks");

#[rustfmt::skip]
const TABLE: [Entry; 23] = [
    Entry { fault: Fault::ServerKilled, layer: Layer::Server, lasts: 1_500, not_on: &[NO_SERVER],
            what: "kill -9 of the server and its sessions, then a start on the same data and port" },
    Entry { fault: Fault::ServerPaused, layer: Layer::Server, lasts: 6_000, not_on: &[NO_SERVER],
            what: "SIGSTOP of the server and its sessions, then SIGCONT" },
    Entry { fault: Fault::ConnectionsReset, layer: Layer::Network, lasts: 2_000, not_on: &[NO_NETWORK],
            what: "every connection is reset, at the begin and at the end" },
    Entry { fault: Fault::RepliesLost, layer: Layer::Network, lasts: 4_000, not_on: &[NO_NETWORK],
            what: "one answer in six is lost with its connection, after the server has executed the request" },
    Entry { fault: Fault::HalfOpen, layer: Layer::Network, lasts: 5_000, not_on: &[NO_NETWORK],
            what: "the server loses its connections, and the writer does not learn it" },
    Entry { fault: Fault::SessionsLeft, layer: Layer::Network, lasts: 3_000, not_on: &[NO_NETWORK],
            what: "the writer loses its connections, and the server does not learn it for 3 s: its sessions stay, with their locks" },
    Entry { fault: Fault::Silence5s, layer: Layer::Network, lasts: 5_000, not_on: &[NO_NETWORK],
            what: "nothing is delivered for 5 s, then everything is, also of connections that were given up" },
    Entry { fault: Fault::Silence33s, layer: Layer::Network, lasts: 33_000, not_on: &[NO_NETWORK],
            what: "the same for 33 s" },
    Entry { fault: Fault::Delay40ms, layer: Layer::Network, lasts: 3_000, not_on: &[NO_NETWORK],
            what: "each direction takes 40 ms" },
    Entry { fault: Fault::Delay500ms, layer: Layer::Network, lasts: 4_000, not_on: &[NO_NETWORK],
            what: "each direction takes 500 ms" },
    Entry { fault: Fault::Delay5s, layer: Layer::Network, lasts: 8_000, not_on: &[NO_NETWORK],
            what: "each direction takes 5 s, longer than the writer waits for a statement" },
    Entry { fault: Fault::Bandwidth, layer: Layer::Network, lasts: 5_000, not_on: &[NO_NETWORK],
            what: "each connection has 8 KiB per second in each direction" },
    Entry { fault: Fault::PoolExhausted, layer: Layer::Database, lasts: 4_000,
            not_on: &[(Sqlite, "SQLite has one connection")],
            what: "the server accepts none or one connection of the writer, or the program holds all of its own pool" },
    Entry { fault: Fault::SessionsTerminated, layer: Layer::Database, lasts: 1_000,
            not_on: &[(Sqlite, "SQLite has no sessions")],
            what: "an administrator ends every session of the writer, at the begin and at the end" },
    Entry { fault: Fault::RowLocked, layer: Layer::Database, lasts: 6_000,
            not_on: &[(Sqlite, "SQLite locks whole databases"), NO_TABLES],
            what: "another transaction locks one row of the keyed table" },
    Entry { fault: Fault::TableLocked, layer: Layer::Database, lasts: 6_000, not_on: &[NO_TABLES],
            what: "another session locks the keyed table (SQLite: the database)" },
    Entry { fault: Fault::ReadOnly, layer: Layer::Database, lasts: 3_000,
            not_on: &[(Sqlite, "an open SQLite database does not become read-only")],
            what: "the server becomes read-only (Redis: a replica)" },
    Entry { fault: Fault::DiskFull, layer: Layer::Disk, lasts: 4_000, not_on: &[],
            what: "the disk of the database is full, then it has space again; a server that ended is started" },
    Entry { fault: Fault::TableRecreated, layer: Layer::Database, lasts: 3_000, not_on: &[NO_TABLES],
            what: "the tables are taken away (renamed), then empty ones are created" },
    Entry { fault: Fault::ColumnAdded, layer: Layer::Database, lasts: 2_000, not_on: &[NO_TABLES],
            what: "a column is added to each table, then removed" },
    Entry { fault: Fault::RightRevoked, layer: Layer::Database, lasts: 3_000, not_on: &[NO_USERS],
            what: "the writer may not write any more, then it may again" },
    Entry { fault: Fault::PasswordWrong, layer: Layer::Database, lasts: 3_000, not_on: &[NO_USERS],
            what: "the password of the writer is changed and its sessions are ended, then the old password is valid again" },
    Entry { fault: Fault::WriterKilled, layer: Layer::Writer, lasts: 300, not_on: &[],
            what: "kill -9 of the writer, then another one starts" },
];

impl Fault {
    fn entry(self) -> &'static Entry {
        TABLE.iter().find(|entry| entry.fault == self).expect("a test checks that every fault is in the table")
    }

    /// Its name on the command line and in reports.
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// What it does.
    pub fn what(self) -> &'static str {
        self.entry().what
    }

    pub(super) fn layer(self) -> Layer {
        self.entry().layer
    }

    /// How long it lasts.
    pub(super) fn lasts(self) -> Duration {
        Duration::from_millis(self.entry().lasts)
    }

    /// Why a database does not have it.
    pub fn missing_on(self, database: DatabaseName) -> Option<&'static str> {
        self.entry().not_on.iter().find(|(name, _)| *name == database).map(|(_, reason)| *reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_every_fault_once() {
        for fault in Fault::value_variants() {
            assert_eq!(TABLE.iter().filter(|entry| entry.fault == *fault).count(), 1, "{fault:?}");
        }
    }

    #[test]
    fn the_documentation_has_every_fault() {
        let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/chaos.md")).unwrap();
        for fault in Fault::value_variants() {
            let line = format!("| `{}` | {}", fault.name(), fault.what());
            let found = page.lines().find(|known| known.starts_with(&line)).unwrap_or_else(|| panic!("no {line}"));
            for (database, name) in [(Sqlite, "SQLite"), (Redis, "Redis")] {
                let last = found.trim_end_matches(" |").rsplit("| ").next().unwrap_or_default();
                assert_eq!(last.contains(name) && last.len() < 16, fault.missing_on(database).is_some(), "{found}");
            }
        }
    }

    #[test]
    fn every_database_has_faults() {
        for database in DatabaseName::ALL {
            let count = Fault::value_variants().iter().filter(|fault| fault.missing_on(database).is_none()).count();
            assert!(count >= 4, "{database:?} has {count}");
        }
    }
}
