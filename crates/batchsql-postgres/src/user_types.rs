//! Owns the reading of the types that users made, which a table's columns have, and of the types of their parts.
//! Must not know columns or what the types are used for.

use batchsql_core::SinkError;
use sqlx::postgres::PgRow;

use crate::catalog_row::{get, letter};
use crate::part::{CatalogPart, CatalogType, CatalogTypes};

/// The parts of a type `t`: attributes, the base type of a domain, elements, bounds, ranges. `rngmultitypid` exists since
/// PostgreSQL 14.
const PARTS: &str = "\
SELECT a.attnum::pg_catalog.int4 AS place, a.attname::pg_catalog.text AS name, a.atttypid AS oid, a.atttypmod AS modifier
FROM pg_catalog.pg_attribute a
WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
UNION ALL SELECT 0, NULL, t.typbasetype, t.typtypmod WHERE t.typtype = 'd'
UNION ALL SELECT 0, NULL, t.typelem, -1 WHERE t.typtype = 'b' AND t.typcategory = 'A' AND t.typelem <> 0
UNION ALL SELECT 0, NULL, r.rngsubtype, -1 FROM pg_catalog.pg_range r WHERE t.typtype = 'r' AND r.rngtypid = t.oid
UNION ALL SELECT 0, NULL, r.rngtypid, -1 FROM pg_catalog.pg_range r
WHERE t.typtype = 'm' AND pg_catalog.to_jsonb(r) OPERATOR(pg_catalog.->>) 'rngmultitypid' = t.oid::pg_catalog.text";

/// The query, with the name of the table as `$1`. The object ids of types that users made begin at 16,384. One row for each
/// part, and one for each type without parts.
pub(crate) fn query() -> String {
    format!(
        "WITH RECURSIVE types AS (
             SELECT a.atttypid AS oid FROM pg_catalog.pg_attribute a
             WHERE a.attrelid = pg_catalog.to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped AND a.atttypid >= 16384
             UNION
             SELECT p.oid FROM types d JOIN pg_catalog.pg_type t ON t.oid = d.oid CROSS JOIN LATERAL ({PARTS}) p)
         SELECT t.oid::pg_catalog.int8, t.typtype::pg_catalog.text, t.typname::pg_catalog.text, t.typnamespace = 11,
                t.typtype = 'b' AND t.typcategory = 'A' AND t.typelem <> 0, p.name, p.oid::pg_catalog.int8, p.modifier,
                pg_catalog.to_regclass($1)::pg_catalog.oid::pg_catalog.int8 AS of_table, 'type'::pg_catalog.text AS part
         FROM types d JOIN pg_catalog.pg_type t ON t.oid = d.oid LEFT JOIN LATERAL ({PARTS}) p ON true
         ORDER BY t.oid, p.place"
    )
}

/// Adds a row of the query.
pub(crate) fn add(types: &mut CatalogTypes, row: &PgRow) -> Result<(), SinkError> {
    let ty = CatalogType {
        kind: letter(row, 1)?,
        name: get(row, 2)?,
        is_builtin: get(row, 3)?,
        is_array: get(row, 4)?,
        parts: Vec::new(),
    };
    let known = types.entry(get(row, 0)?).or_insert(ty);
    if let Some(ty) = get::<Option<i64>>(row, 6)? {
        known.parts.push(CatalogPart { attribute: get(row, 5)?, ty, modifier: get(row, 7)? });
    }
    Ok(())
}
