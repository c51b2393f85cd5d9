//! Owns which fault is next, and which faults a soak does not cause: a function of the database.
//! Must not know how a fault is caused.

use clap::ValueEnum;

use crate::chaos::fault::Fault;
use crate::database::DatabaseName;

/// Faults that a soak does not cause on any database, with the reason.
const LEFT_OUT: [(Fault, &str); 2] = [
    (Fault::WriterKilled, "the figures are those of one process"),
    (Fault::DiskFull, "the disk of a long run is not a small one"),
];

/// The faults of a database, in turn.
pub(super) fn faults(database: DatabaseName) -> Vec<Fault> {
    let is_caused =
        |fault: &Fault| fault.missing_on(database).is_none() && LEFT_OUT.iter().all(|(left_out, _)| left_out != fault);
    Fault::value_variants().iter().copied().filter(is_caused).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_but_two_is_caused_where_it_exists() {
        for database in DatabaseName::ALL {
            let faults = faults(database);
            let expected = Fault::value_variants().iter().filter(|fault| fault.missing_on(database).is_none()).count();
            assert_eq!(faults.len(), expected - LEFT_OUT.len(), "{database:?}");
            assert!(faults.len() >= 2, "{database:?}: {faults:?}");
        }
    }

    #[test]
    fn the_documentation_names_what_is_left_out() {
        let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/soak.md")).unwrap();
        for (fault, reason) in LEFT_OUT {
            assert!(page.contains(&format!("`{}` ({reason})", fault.name())), "{}", fault.name());
        }
    }
}
