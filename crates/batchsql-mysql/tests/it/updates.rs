//! Updates without insert of many rows in one statement: every value is stored as an insert stores it, and every row is counted.

use batchsql_core::{
    ColumnType, Conflict, Decimal, DynRow, Expr, Json, OutcomeKind, Schema, Sink, Time, Timestamp, TimestampTz, Value,
};
use batchsql_testserver::Random;

use crate::support::{Database, pipeline, submitted, write};

/// Numbers that look random and are the same in every run.
struct Numbers(Random);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0.number()
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0.below(bound)
    }

    fn micros(&mut self) -> i64 {
        self.below(2_000_000_000_000_000) as i64 + 1_000_000
    }

    /// Of most lengths, also of the longest.
    fn text(&mut self, longest: u64) -> String {
        let length = [self.below(4), self.below(longest + 1), longest][self.below(3) as usize];
        (0..length).map(|_| ['a', 'é', ' ', '\'', '0', 'Z'][self.below(6) as usize]).collect()
    }

    /// Of version 4: MariaDB refuses others than those of known versions.
    fn uuid(&mut self) -> Value {
        let mut bytes = (u128::from(self.next()) << 64 | u128::from(self.next())).to_be_bytes();
        (bytes[6], bytes[8]) = (bytes[6] & 0x0f | 0x40, bytes[8] & 0x3f | 0x80);
        Value::Uuid(bytes)
    }

    fn decimal(&mut self) -> Value {
        let (digits, fraction) = (1 + self.below(19), self.below(11) as usize);
        let sign = if self.below(2) == 0 { "-" } else { "" };
        let whole = self.below(10_u64.pow(digits as u32));
        let text = if fraction == 0 {
            format!("{sign}{whole}")
        } else {
            format!("{sign}{whole}.{:0fraction$}", self.below(10_u64.pow(fraction as u32)))
        };
        text.parse::<Decimal>().unwrap().into()
    }
}

type Column = (&'static str, ColumnType, fn(&mut Numbers) -> Value);

/// A column, the type of its rows, and a value.
fn columns(is_mariadb: bool) -> Vec<Column> {
    use ColumnType as C;
    let mut columns: Vec<Column> = vec![
        ("SMALLINT", C::I16, |n| Value::I16(n.next() as i16)),
        ("INT", C::I32, |n| Value::I32(n.next() as i32)),
        ("BIGINT", C::I64, |n| Value::I64(n.next() as i64)),
        ("BIGINT UNSIGNED", C::U64, |n| Value::U64(n.next())),
        ("DECIMAL(20,0)", C::U64, |n| Value::U64(n.next())),
        ("YEAR", C::I32, |n| Value::I32(1_901 + n.below(200) as i32)),
        ("BOOLEAN", C::Bool, |n| Value::Bool(n.below(2) == 0)),
        ("BIT(1)", C::Bool, |n| Value::Bool(n.below(2) == 0)),
        ("BIT(12)", C::Text, |n| format!("{:b}", n.below(4_096)).into()),
        ("FLOAT", C::F32, |n| Value::F32(f32::from_bits(n.next() as u32 & 0x7f7f_ffff))),
        ("DOUBLE", C::F32, |n| Value::F32(f32::from_bits(n.next() as u32 & 0x7f7f_ffff))),
        ("DOUBLE", C::F64, |n| Value::F64(f64::from_bits(n.next() & 0xffef_ffff_ffff_ffff))),
        ("DECIMAL(30,10)", C::Decimal, Numbers::decimal),
        ("VARCHAR(40)", C::Decimal, Numbers::decimal),
        ("TEXT", C::Text, |n| n.text(30).into()),
        ("VARCHAR(50) CHARACTER SET latin1", C::Text, |n| n.text(50).into()),
        ("VARCHAR(90) COLLATE utf8mb4_bin", C::Text, |n| n.text(90).into()),
        ("CHAR(36)", C::Uuid, Numbers::uuid),
        ("ENUM('a','b''c')", C::Text, |n| ["a", "b'c"][n.below(2) as usize].into()),
        ("SET('x','y')", C::Text, |n| ["", "x", "y,x"][n.below(3) as usize].into()),
        ("JSON", C::Json, |n| format!("{{\"a\": [{}, \"{}\"]}}", n.next(), n.text(40)).parse::<Json>().unwrap().into()),
        ("DATE", C::Date, |n| Timestamp::from_micros_since_epoch(n.micros()).unwrap().parts().0.into()),
        ("TIME(6)", C::Time, |n| Time::from_micros_since_midnight(n.below(86_400_000_000) as i64).unwrap().into()),
        ("DATETIME(6)", C::Timestamp, |n| Timestamp::from_micros_since_epoch(-n.micros()).unwrap().into()),
        ("TIMESTAMP(6)", C::TimestampTz, |n| TimestampTz::from_micros_since_epoch(n.micros()).unwrap().into()),
    ];
    if is_mariadb {
        columns.push(("INET6", C::Text, |n| format!("2001:db8::{:x}", 1 + n.below(65_535)).into()));
        columns.push(("UUID", C::Uuid, Numbers::uuid));
    }
    columns
}

#[tokio::test]
async fn an_update_stores_what_an_insert_stores() {
    let db = Database::new("").await;
    let is_mariadb = db.read("SELECT VERSION()").await[0].contains("MariaDB");
    // Few columns with texts, which may then be wide.
    for columns in columns(is_mariadb).chunks(3) {
        compare(&db, columns, is_mariadb).await;
    }
}

/// Writes the same rows to two tables: by updates, and by inserts.
async fn compare(db: &Database, columns: &[Column], is_mariadb: bool) {
    let declared: Vec<String> =
        columns.iter().enumerate().map(|(n, column)| format!("c{n} {} NULL", column.0)).collect();
    let table =
        |name: &str| format!("CREATE TABLE {name} (id BIGINT PRIMARY KEY, {}, long_text TEXT)", declared.join(","));
    db.run(&format!("DROP TABLE IF EXISTS updated, inserted; {}; {}", table("updated"), table("inserted"))).await;
    let keys: Vec<String> = (0..300).map(|key| format!("({})", key * 3)).collect();
    db.run(&format!("INSERT INTO updated (id) VALUES {}", keys.join(","))).await;
    let schema = |name: &str, rule: Conflict| {
        let builder = Schema::builder(name).column("id", ColumnType::I64);
        let builder = columns.iter().enumerate().fold(builder, |b, (n, column)| b.nullable(format!("c{n}"), column.1));
        builder.nullable("long_text", ColumnType::Text).on_conflict(rule).build().unwrap()
    };
    let (updated, inserted) = (schema("updated", Conflict::update_only(["id"])), schema("inserted", Conflict::none()));
    let plan = db.sink.prepare(&mut db.sink.acquire().await.unwrap(), &updated).await.unwrap();
    assert!(format!("{plan:?}").contains(&format!("is_listed: {is_mariadb}")), "{plan:?}");
    let (updates, inserts) = (pipeline(&db.sink), pipeline(&db.sink));
    let mut numbers = Numbers(Random::new(1));
    // Texts of every width, also of none that is listed; and again, with the statements of before.
    for (round, longest) in [10, 100, 450, 5_000, 10, 450].into_iter().enumerate() {
        let rows: Vec<Vec<Value>> = (0..300_i64)
            .map(|key| {
                let mut value = |of: &mut dyn FnMut(&mut Numbers) -> Value| {
                    // The first rows and the last one have no value in some rounds.
                    let is_null =
                        numbers.below(4) == 0 || (key < 5 && round % 2 == 0) || (key == 299 && round % 2 == 1);
                    if is_null { Value::Null } else { of(&mut numbers) }
                };
                let mut row = vec![Value::from(key * 3)];
                row.extend(columns.iter().map(|column| value(&mut |numbers| column.2(numbers))));
                row.push(value(&mut |numbers| numbers.text(longest).into()));
                row
            })
            .collect();
        let of = |schema: &Schema| -> Vec<DynRow> {
            rows.iter().map(|row| schema.row().set_all(row.clone()).unwrap().finish().unwrap()).collect()
        };
        db.run("DELETE FROM inserted").await;
        for (pipeline, schema) in [(&updates, &updated), (&inserts, &inserted)] {
            let outcomes = submitted(pipeline, of(schema)).await;
            let bad = outcomes.iter().find(|outcome| outcome.kind() != OutcomeKind::Written);
            assert!(
                bad.is_none(),
                "round {round}, {:?}: {:?}",
                schema.action(),
                bad.and_then(|bad| bad.failure()?.error())
            );
        }
        for (name, ty) in
            (0..columns.len()).map(|n| (format!("c{n}"), columns[n].0)).chain([("long_text".into(), "TEXT")])
        {
            let is_number = ["FLOAT", "DOUBLE"].contains(&ty);
            let [own, other] = ["updated", "inserted"].map(|table| {
                if is_number { format!("{table}.{name}") } else { format!("HEX(CONCAT({table}.{name}))") }
            });
            let differ = format!(
                "SELECT COUNT(*), MIN({own}), MIN({other}) FROM updated JOIN inserted USING (id) WHERE NOT {own} <=> {other}"
            );
            assert_eq!(db.read(&differ).await, ["0|NULL|NULL"], "round {round}, {name} {ty}");
            let nulls = db.read(&format!("SELECT COUNT({name}) FROM updated")).await;
            assert!(nulls[0].parse::<u32>().unwrap() > 100, "round {round}, {name} {ty}: {nulls:?}");
        }
    }
}

/// The names of columns are those of the statement's own, a key has several columns, and some rows do not exist.
#[tokio::test]
async fn every_row_of_an_update_is_found_or_ignored() {
    let db =
        Database::new("CREATE TABLE t (c1 INT, c0 SMALLINT, c2 BIGINT, v BIGINT UNSIGNED, PRIMARY KEY (c1, c0, c2))")
            .await;
    let list: Vec<String> = (0..1_200).map(|n| format!("({},{},{},0)", n / 100, n % 100, i64::MAX - n)).collect();
    db.run(&format!("INSERT INTO t VALUES {}", list.join(","))).await;
    let schema = Schema::builder("t").column("v", ColumnType::U64).column("c0", ColumnType::I64);
    let schema = schema.column("c2", ColumnType::I64).column("c1", ColumnType::I32);
    let schema = schema.on_conflict(Conflict::update_only(["c2", "c1", "c0"]).set("v", Expr::add())).build().unwrap();
    let row = |n: i64, v: u64| {
        let values = [v.into(), Value::I64(n % 100), Value::I64(i64::MAX - n), Value::I32((n / 100) as i32)];
        schema.row().set_all(values).unwrap().finish().unwrap()
    };
    // More rows than one statement has. The same values again are found too.
    let outcomes = write(&db.sink, (0..1_200).map(|n| row(n, 1 << 63))).await;
    assert!(outcomes.iter().all(|outcome| *outcome == "written"), "{outcomes:?}");
    assert_eq!(
        db.read("SELECT COUNT(*), MIN(v), MAX(v) FROM t").await,
        ["1200|9223372036854775808|9223372036854775808"]
    );
    let outcomes = write(&db.sink, (1_100..1_300).map(|n| row(n, 0))).await;
    let ignored = outcomes.iter().filter(|outcome| **outcome == "ignored").count();
    assert_eq!((ignored, &outcomes[..100]), (100, &["written"; 100][..]));
    assert_eq!(
        db.read("SELECT COUNT(*), MIN(v), MAX(v) FROM t").await,
        ["1200|9223372036854775808|9223372036854775808"]
    );
}
