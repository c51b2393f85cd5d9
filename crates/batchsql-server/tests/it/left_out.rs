//! Columns that the database has and rows cannot carry: whoever names one is told why.

use crate::program::Place;

fn place() -> Place {
    let place = Place::new();
    place.sql(
        "CREATE TABLE orders (id INTEGER PRIMARY KEY, n INTEGER, twice INTEGER GENERATED ALWAYS AS (n * 2) STORED, doc JSON);",
    );
    place
}

const GENERATED: &str = "(it is generated)";

#[test]
fn a_field_of_a_file_that_is_such_a_column_has_the_reason() {
    let place = place();
    place.write("a.ndjson", "{\"id\":1,\"twice\":2}\n{\"id\":2,\"doc\":3}\n");
    place.write("a.csv", "id,twice\n1,2\n");
    let load = |file: &str| place.run(&["load", file, "--database", "sqlite:a.db", "--table", "orders"]);
    let ran = load("a.csv");
    assert!(ran.code() == 2 && ran.err().contains(GENERATED), "{}", ran.all());
    let ran = load("a.ndjson");
    assert_eq!(ran.code(), 1, "{}", ran.all());
    let rejects = std::fs::read_to_string(place.path("a.ndjson.rejects.ndjson")).unwrap();
    let field = |name: &str| format!("field \\\"{name}\\\" cannot be written: rows cannot carry this column (");
    assert!(rejects.contains(&field("twice")) && rejects.contains(GENERATED), "{rejects}");
    assert!(rejects.contains(&field("doc")) && !rejects.contains("not declared"), "{rejects}");
}

#[cfg(feature = "arrow")]
#[test]
fn a_field_of_a_parquet_file_that_is_such_a_column_has_the_reason() {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, Int64Array, RecordBatch};
    use parquet::arrow::ArrowWriter;

    let place = place();
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let batch = RecordBatch::try_from_iter([("id", Arc::clone(&numbers)), ("twice", numbers)]).unwrap();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    place.write("a.parquet", writer.into_inner().unwrap());
    let load = |more: &[&str]| {
        place.run(&[&["load", "a.parquet", "--database", "sqlite:a.db", "--table", "orders"], more].concat())
    };
    let ran = load(&[]);
    assert!(ran.code() == 2 && ran.err().contains("the file has the field `twice`"), "{}", ran.all());
    assert!(ran.err().contains(GENERATED), "{}", ran.all());
    assert_eq!(load(&["--ignore-unknown"]).code(), 0);
    assert_eq!(place.number("SELECT count(*) FROM orders WHERE id = 1"), 1);
}

#[test]
fn a_configuration_that_names_such_a_column_has_the_reason() {
    let place = place();
    let check = |line: &str| {
        place.write("b.toml", format!("{}[[tables]]\nname = \"orders\"\n{line}\n", place.database()));
        let ran = place.run(&["check", "b.toml"]);
        assert_eq!(ran.code(), 1, "{}", ran.all());
        ran.all()
    };
    for line in ["fields = { q = \"twice\" }", "defaults = { twice = 1 }"] {
        let said = check(line);
        assert!(said.contains(GENERATED) && !said.contains("does not have"), "{said}");
    }
    for line in [
        "rule = \"update\"\nkey = [\"twice\"]",
        "rule = \"update\"\nupdate_columns = [\"twice\"]",
        "rule = \"update\"\nset = { twice = \"add\" }",
        "rule = \"update\"\nonly_if_newer = \"twice\"",
    ] {
        let said = check(line);
        assert!(said.contains("twice: it is generated"), "{said}");
    }
}
