//! The sink of BatchSQL for this database.
