//! Owns the case that replays a real data set; its origin and licence are in `data/README.md`.
//! Must not know databases.

use std::sync::Arc;

use anyhow::{Context, Result};
use async_trait::async_trait;
use batchsql::{Date, Decimal, Row, TypedRow, ValueRef};
use serde::{Deserialize, Deserializer};

use super::{Case, Expected, Load, Settings};
use crate::database::{Database, TableSpec};
use crate::digest::Digest;

const CITIES: &str = include_str!("../../data/cities.csv");

/// Added to the keys of each repetition; above every key of the data set.
const NEXT_REPETITION: i64 = 100_000_000;

/// A place of the file. An empty field is `NULL`.
#[derive(Debug, Clone, Deserialize)]
struct City {
    geoname_id: i64,
    name: String,
    ascii_name: String,
    local_name: Option<String>,
    #[serde(deserialize_with = "decimal")]
    latitude: Decimal,
    #[serde(deserialize_with = "decimal")]
    longitude: Decimal,
    feature_code: String,
    country_code: String,
    admin1_code: Option<String>,
    admin2_code: Option<String>,
    population: i64,
    elevation: Option<i32>,
    dem: Option<i32>,
    timezone: String,
    alternate_name_count: i32,
    #[serde(deserialize_with = "date")]
    modified_on: Date,
}

/// A place as it is written; borrows everything except its key.
#[derive(Debug, Row)]
#[row(table = "batchsql_suite_cities", key = "id", on_conflict = "ignore")]
struct CityRow<'a> {
    id: i64,
    name: &'a str,
    ascii_name: &'a str,
    local_name: Option<&'a str>,
    latitude: &'a Decimal,
    longitude: &'a Decimal,
    feature_code: &'a str,
    country_code: &'a str,
    admin1_code: Option<&'a str>,
    admin2_code: Option<&'a str>,
    population: i64,
    elevation: Option<i32>,
    dem: Option<i32>,
    timezone: &'a str,
    alternate_name_count: i32,
    modified_on: Date,
}

fn decimal<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Decimal, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

fn date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Date, D::Error> {
    let text = String::deserialize(deserializer)?;
    let mut parts = text.splitn(3, '-').map(|part| part.parse::<u32>().ok());
    let mut part = || parts.next().flatten();
    let date = part().zip(part()).zip(part()).and_then(|((y, m), d)| Date::from_ymd(i32::try_from(y).ok()?, m, d));
    date.ok_or_else(|| serde::de::Error::custom("not a date of the form 2020-03-15"))
}

fn cities() -> Result<Vec<City>> {
    let mut reader = csv::Reader::from_reader(CITIES.as_bytes());
    reader.deserialize().collect::<Result<_, _>>().context("data/cities.csv")
}

impl City {
    fn row(&self, repetition: i64) -> CityRow<'_> {
        CityRow {
            id: repetition * NEXT_REPETITION + self.geoname_id,
            name: &self.name,
            ascii_name: &self.ascii_name,
            local_name: self.local_name.as_deref(),
            latitude: &self.latitude,
            longitude: &self.longitude,
            feature_code: &self.feature_code,
            country_code: &self.country_code,
            admin1_code: self.admin1_code.as_deref(),
            admin2_code: self.admin2_code.as_deref(),
            population: self.population,
            elevation: self.elevation,
            dem: self.dem,
            timezone: &self.timezone,
            alternate_name_count: self.alternate_name_count,
            modified_on: self.modified_on,
        }
    }
}

impl CityRow<'_> {
    fn values(&self) -> [ValueRef<'_>; 16] {
        [
            ValueRef::I64(self.id),
            ValueRef::Text(self.name),
            ValueRef::Text(self.ascii_name),
            self.local_name.map_or(ValueRef::Null, ValueRef::Text),
            ValueRef::Decimal(self.latitude.as_str()),
            ValueRef::Decimal(self.longitude.as_str()),
            ValueRef::Text(self.feature_code),
            ValueRef::Text(self.country_code),
            self.admin1_code.map_or(ValueRef::Null, ValueRef::Text),
            self.admin2_code.map_or(ValueRef::Null, ValueRef::Text),
            ValueRef::I64(self.population),
            self.elevation.map_or(ValueRef::Null, ValueRef::I32),
            self.dem.map_or(ValueRef::Null, ValueRef::I32),
            ValueRef::Text(self.timezone),
            ValueRef::I32(self.alternate_name_count),
            ValueRef::Date(self.modified_on),
        ]
    }
}

pub(super) struct RealDataset;

#[async_trait]
impl Case for RealDataset {
    fn description(&self) -> &'static str {
        "4,000 real places from GeoNames (CC BY 4.0) with NULLs, decimals, dates and names in 27 scripts, repeated with \
         new keys. Every value must be read back unchanged."
    }

    fn tables(&self) -> Vec<TableSpec> {
        let schema = CityRow::type_schema().clone();
        vec![TableSpec { indexes: &["country_code", "name"], ..TableSpec::new(schema, &["id"]) }]
    }

    fn adjust(&self, settings: &mut Settings) {
        settings.note("source", "data/cities.csv, 4000 rows of GeoNames");
    }

    async fn drive(&self, load: &Load, _: &dyn Database) -> Result<Expected> {
        let cities = Arc::new(cities()?);
        let digests = load.workers(|load, worker| {
            let cities = Arc::clone(&cities);
            async move {
                let mut digest = Digest::default();
                let first = worker as usize * load.settings.rows_per_worker;
                for n in first..first + load.settings.rows_per_worker {
                    if load.is_over() {
                        break;
                    }
                    let row = cities[n % cities.len()].row((n / cities.len()) as i64);
                    load.submit(&row).await?;
                    digest.add_values(row.values());
                }
                Ok(digest)
            }
        });
        let mut all = Digest::default();
        digests.await?.into_iter().for_each(|digest| all.merge(digest));
        Ok(Expected { tables: vec![(CityRow::type_schema().clone(), all)], ..Expected::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_set_is_what_its_readme_says() {
        let cities = cities().unwrap();
        assert_eq!(cities.len(), 4000);
        assert_eq!(cities.iter().filter(|city| city.local_name.is_none()).count(), 2576);
        assert_eq!(cities.iter().filter(|city| city.elevation.is_none()).count(), 3606);
        assert_eq!(cities.iter().map(|city| city.population).sum::<i64>(), 1_966_396_891);
        assert!(cities.iter().all(|city| city.geoname_id < NEXT_REPETITION));
        assert!(cities.iter().any(|city| city.name == "Washington, D.C."));
        assert_eq!(cities.iter().filter(|city| city.country_code == "NA").count(), 3);
    }
}
