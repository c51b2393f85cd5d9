//! `batchsql load` of Parquet and Arrow files, with SQLite.

use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, StructArray, TimestampNanosecondArray,
};
use arrow_ipc::CompressionType;
use arrow_ipc::writer::{FileWriter, IpcWriteOptions, StreamWriter};
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use serde_json::Value;

use crate::load::kill_and_go_on;
use crate::program::{Place, Ran};

/// Without a key: a row that is written twice shows.
const TABLE: &str = "CREATE TABLE orders (id INTEGER NOT NULL CHECK (id >= 0), note TEXT, total REAL);";

pub(crate) fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let field = |(name, array): &(&str, ArrayRef)| Field::new(*name, array.data_type().clone(), true);
    let schema = Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()));
    RecordBatch::try_new(schema, columns.into_iter().map(|(_, array)| array).collect()).unwrap()
}

fn orders(ids: impl IntoIterator<Item = Option<i64>>) -> RecordBatch {
    let ids: Vec<Option<i64>> = ids.into_iter().collect();
    let notes: StringArray = ids.iter().map(|id| id.map(|id| format!("note, {id}"))).collect();
    let totals: Float64Array = ids.iter().map(|id| id.map(|id| id as f64 + 0.5)).collect();
    batch(vec![("id", Arc::new(Int64Array::from(ids))), ("note", Arc::new(notes)), ("total", Arc::new(totals))])
}

fn all(ids: std::ops::Range<i64>) -> RecordBatch {
    orders(ids.map(Some))
}

/// The file of the guide.
pub(crate) fn orders_of_the_guide() -> Vec<u8> {
    let ids = Int64Array::from(vec![Some(20), None, Some(22)]);
    let customers = StringArray::from(vec!["ada", "nobody", "eve"]);
    let totals = Float64Array::from(vec![Some(20.5), Some(1.0), None]);
    let columns: Vec<(&str, ArrayRef)> =
        vec![("id", Arc::new(ids)), ("customer", Arc::new(customers)), ("total", Arc::new(totals))];
    parquet(&batch(columns), Compression::SNAPPY)
}

/// A Parquet file with row groups of 1,000 rows.
pub(crate) fn parquet(batch: &RecordBatch, compression: Compression) -> Vec<u8> {
    let properties = WriterProperties::builder().set_compression(compression).set_max_row_group_row_count(Some(1_000));
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties.build())).unwrap();
    writer.write(batch).unwrap();
    writer.into_inner().unwrap()
}

fn arrow(batches: &[RecordBatch], compression: Option<CompressionType>) -> Vec<u8> {
    let options = IpcWriteOptions::default().try_with_compression(compression).unwrap();
    let mut writer = FileWriter::try_new_with_options(Vec::new(), batches[0].schema_ref(), options).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.into_inner().unwrap()
}

fn load<'a>(place: &Place, more: &[&'a str]) -> Vec<String> {
    let dsn = format!("sqlite:{}", place.path("a.db").display());
    let mut arguments: Vec<String> = ["load", "--database", &dsn, "--table", "orders"].map(str::to_owned).to_vec();
    arguments.extend(more.iter().map(|&argument: &&'a str| argument.to_owned()));
    arguments
}

fn run(place: &Place, more: &[&str]) -> Ran {
    let arguments = load(place, more);
    place.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn files_of_every_form_are_loaded_once() {
    let place = Place::new();
    place.sql(TABLE);
    let compressions = [
        Compression::SNAPPY,
        Compression::ZSTD(Default::default()),
        Compression::LZ4_RAW,
        Compression::GZIP(Default::default()),
        Compression::UNCOMPRESSED,
    ];
    for (number, compression) in (0..).zip(compressions) {
        place.write("a.parquet", parquet(&all(number * 2_500..(number + 1) * 2_500), compression));
        let ran = run(&place, &["a.parquet"]);
        assert_eq!(ran.code(), 0, "{}", ran.all());
        assert!(ran.out().starts_with("a.parquet: 2500 records, 2500 written, "), "{}", ran.all());
    }
    for (number, compression) in (5..).zip([None, Some(CompressionType::LZ4_FRAME), Some(CompressionType::ZSTD)]) {
        let (begin, middle) = (number * 2_500, number * 2_500 + 700);
        place.write("a.feather", arrow(&[all(begin..middle), all(middle..begin + 2_500)], compression));
        let ran = run(&place, &["a.feather"]);
        assert!(ran.code() == 0 && ran.out().contains("2500 written"), "{}", ran.all());
    }
    let mut stream = StreamWriter::try_new(Vec::new(), all(0..1).schema_ref()).unwrap();
    stream.write(&all(20_000..20_100)).unwrap();
    place.write("b", stream.into_inner().unwrap());
    let ran = run(&place, &["b", "--format", "arrow"]);
    assert!(ran.code() == 0 && ran.out().contains("100 written"), "{}", ran.all());
    assert_eq!(place.number("SELECT count(*) FROM orders"), 20_100);
    assert_eq!(place.number("SELECT sum(id) FROM orders"), (0..20_100).sum::<i64>());
    let odd = "SELECT count(*) FROM orders WHERE note = 'note, ' || id AND total = id + 0.5";
    assert_eq!(place.number(odd), 20_100);
    let ran = run(&place, &["a.feather"]);
    assert!(ran.code() == 0 && ran.out().contains("2500 records, already loaded"), "{}", ran.all());
}

#[test]
fn rejected_rows_have_their_number_and_reason() {
    let place = Place::new();
    place.sql(TABLE);
    // Rows 3, 5002 and 5004 are bad, the first one in the file and the last one for the database.
    let ids = (1..=6_000).map(|row| match row {
        3 | 5_002 => None,
        5_004 => Some(-7),
        row => Some(row),
    });
    place.write("a.parquet", parquet(&orders(ids), Compression::SNAPPY));
    let ran = run(&place, &["a.parquet"]);
    assert_eq!(ran.code(), 1, "{}", ran.all());
    assert!(
        ran.out().contains("6000 records, 5997 written, 3 rejected, see a.parquet.rejects.ndjson"),
        "{}",
        ran.all()
    );
    assert_eq!(place.number("SELECT count(*) FROM orders"), 5_997);
    let rejects = std::fs::read_to_string(place.path("a.parquet.rejects.ndjson")).unwrap();
    let mut rejects: Vec<Value> = rejects.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    rejects.sort_by_key(|reject| reject["line"].as_u64());
    let expected = [
        (3, "column \"id\" is NULL", r#"{"id":null,"note":null,"total":null}"#),
        (5_002, "column \"id\" is NULL", r#"{"id":null,"note":null,"total":null}"#),
        (5_004, "CHECK constraint failed", r#"{"id":-7,"note":"note, -7","total":-6.5}"#),
    ];
    assert_eq!(rejects.len(), 3);
    for (reject, (row, reason, text)) in rejects.iter().zip(expected) {
        assert!(reject["line"] == row && reject["record"] == row, "{reject}");
        assert!(reject["reason"].as_str().unwrap().contains(reason) && reject["text"] == text, "{reject}");
    }
    let ran = run(&place, &["a.parquet"]);
    assert!(ran.code() == 1 && ran.out().contains("already loaded, 3 rejected"), "{}", ran.all());
}

#[test]
fn a_killed_load_goes_on_and_writes_each_row_once() {
    // All partitions have more than one block.
    const RECORDS: i64 = 190_000;
    for name in ["a.parquet", "a.arrow"] {
        let place = Place::new();
        place.sql(TABLE);
        place.sql("PRAGMA journal_mode = WAL");
        let content = match name {
            "a.parquet" => parquet(&all(0..RECORDS), Compression::SNAPPY),
            _ => arrow(&[all(0..9_000), all(9_000..RECORDS)], None),
        };
        place.write(name, content);
        let arguments = load(&place, &[name]);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let rows = || place.number("SELECT count(*) FROM orders");
        let kills = kill_and_go_on(&place, &arguments, 0, &rows);
        assert!(kills >= 2, "{name}: it was killed {kills} times");
        assert_eq!(rows(), RECORDS, "{name}");
        assert_eq!(place.number("SELECT count(DISTINCT id) FROM orders"), RECORDS, "{name}");
        assert_eq!(place.number("SELECT sum(id) FROM orders"), (0..RECORDS).sum::<i64>(), "{name}");
    }
}

#[test]
fn what_cannot_be_loaded_says_why_before_the_first_row() {
    let place = Place::new();
    place.sql(TABLE);
    let check = |name: &str, content: Vec<u8>, more: &[&str], code: i32, part: &str| {
        place.write(name, content);
        let ran = run(&place, &[&[name], more].concat());
        assert!(ran.code() == code && ran.all().contains(part), "{name}: {part}: {}", ran.all());
    };
    let one = || Arc::new(Int64Array::from(vec![1])) as ArrayRef;
    let field = Arc::new(Field::new("city", DataType::Int64, true));
    let nested = || Arc::new(StructArray::from(vec![(Arc::clone(&field), one())])) as ArrayRef;
    let snappy = |columns| parquet(&batch(columns), Compression::SNAPPY);
    let reason = "column \"note\" expects text but the field is Struct";
    check("nested.parquet", snappy(vec![("id", one()), ("note", nested())]), &[], 2, reason);
    check("nested.parquet", snappy(vec![("id", one()), ("address", nested())]), &[], 2, "\"address\" is not a column");
    check("nested.parquet", snappy(vec![("id", one()), ("address", nested())]), &["--ignore-unknown"], 0, "1 written");
    check(
        "a.arrow",
        arrow(&[batch(vec![("note", one())])], None),
        &[],
        2,
        "column \"note\" expects text but the field is Int64",
    );
    check("a.arrow", arrow(&[batch(vec![("total", one())])], None), &[], 2, "column \"id\" needs a value");
    let good = snappy(vec![("id", one())]);
    check("cut.parquet", good[..good.len() / 2].to_vec(), &[], 2, "not a readable Parquet file");
    check("empty.parquet", Vec::new(), &[], 2, "not a readable Parquet file");
    check("empty.arrow", Vec::new(), &[], 2, "the file is empty");
    check("old.feather", b"FEA1....FEA1".to_vec(), &[], 2, "Feather version 1");
    check("bad.arrow", b"ARROW1\0\0 and nothing".to_vec(), &[], 2, "bad.arrow: its content is not readable");
    let file = arrow(&[batch(vec![("id", one())])], None);
    check("cut.arrow", file[..file.len() / 2].to_vec(), &[], 2, "its content is not readable");
    check("a.parquet.gz", good, &[], 2, "its values are compressed inside");
    assert_eq!(place.number("SELECT count(*) FROM orders"), 1);
}

#[test]
fn fields_are_mapped_and_defaults_are_taken() {
    let place = Place::new();
    place.sql("CREATE TABLE orders (id INTEGER NOT NULL, note TEXT, total REAL, tags TEXT);");
    let config = format!(
        "{}[[tables]]\nname = \"orders\"\nfields = {{ number = \"id\" }}\ndefaults = {{ note = \"none\", total = 0.5 }}\n\
         unknown_fields = \"ignore\"\n",
        place.database()
    );
    place.write("b.toml", config);
    let ids = Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef;
    let totals = Arc::new(Float64Array::from(vec![Some(7.5), None])) as ArrayRef;
    let other = Arc::new(TimestampNanosecondArray::from(vec![1, 2])) as ArrayRef;
    let columns = vec![("other", other), ("number", ids), ("total", totals)];
    place.write("a.parquet", parquet(&batch(columns), Compression::SNAPPY));
    let ran = place.run(&["load", "a.parquet", "--config", "b.toml"]);
    assert!(ran.code() == 0 && ran.out().contains("2 written"), "{}", ran.all());
    let row = "id = 1 AND note = 'none' AND total = 7.5 AND tags IS NULL";
    assert_eq!(place.number(&format!("SELECT count(*) FROM orders WHERE {row}")), 1);
    assert_eq!(place.number("SELECT count(*) FROM orders WHERE id = 2 AND total IS NULL"), 1);
}
