//! Owns the tables of a soak by name.
//! Must not know their rows.

use crate::chaos::load;

/// A table of a soak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    /// Without a key.
    Plain,
    /// The last row of a key stays.
    Keyed,
    /// The first row of a key stays.
    Once,
    /// A number is added to that of the key.
    Counter,
}

impl Table {
    /// Every table.
    pub(super) const ALL: [Self; 4] = [Self::Plain, Self::Keyed, Self::Once, Self::Counter];

    /// Its name in reports.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Keyed => "keyed",
            Self::Once => "once",
            Self::Counter => "counter",
        }
    }

    /// The table of chaos that it is; `None` for counters.
    pub(super) fn of_load(self) -> Option<load::Table> {
        match self {
            Self::Plain => Some(load::Table::Plain),
            Self::Keyed => Some(load::Table::Keyed),
            Self::Once => Some(load::Table::Once),
            Self::Counter => None,
        }
    }
}
