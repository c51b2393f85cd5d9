//! Owns which field of a batch is which column of a table, and how parts of a batch become rows.
//! Must not know pipelines.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, UInt64Type};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{DataType, SchemaRef};
use batchsql_core::{
    ColumnBuilder, ColumnType, ColumnValues, Date, FieldRules, MissingFields, RefusedRow, Schema, SharedRows, Time,
    Timestamp, TimestampTz, UnknownFields, Value, ValueRef, ValueRules,
};

use crate::convert::{Problem, each, row_text};
use crate::error::MappingError;
use crate::types::{fits, remedy};

/// How batches with the fields of one Arrow schema become rows of a table. Fields are columns by their name.
///
/// ```
/// use std::sync::Arc;
/// use arrow_array::{Int64Array, RecordBatch, StringArray};
/// use arrow_schema::{DataType, Field};
/// use batchsql_arrow::Mapping;
/// use batchsql_core::{ColumnType, FieldRules, Schema, ValueRef};
///
/// let notes = Schema::builder("notes").column("id", ColumnType::I64).nullable("text", ColumnType::Text).build()?;
/// let fields = vec![Field::new("text", DataType::Utf8, true), Field::new("id", DataType::Int64, false)];
/// let fields = Arc::new(arrow_schema::Schema::new(fields));
/// let mapping = Mapping::new(&notes, &fields, FieldRules::default())?;
///
/// let texts = StringArray::from(vec![Some("one"), None]);
/// let batch = RecordBatch::try_new(fields, vec![Arc::new(texts), Arc::new(Int64Array::from(vec![1, 2]))])?;
/// let mapped = mapping.rows(&batch, 0..2)?;
/// assert!(mapped.refused.is_empty());
/// assert_eq!(mapped.rows.rows().column(0).get(1), ValueRef::I64(2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Mapping {
    /// With the columns that rows of the batches have.
    schema: Schema,
    fields: SchemaRef,
    /// Of each column.
    sources: Vec<Source>,
}

/// Where the values of a column come from.
#[derive(Clone)]
enum Source {
    Field(usize),
    /// The same for all rows.
    Value(Value),
}

/// Rows of a part of a batch.
#[derive(Debug)]
#[non_exhaustive]
pub struct MappedRows {
    /// The rows that fit.
    pub rows: SharedRows,
    /// The number of each of them in the batch.
    pub numbers: Vec<usize>,
    /// The other rows, with their number in the batch, the lowest first. A row is there once, with its first column that
    /// does not fit.
    pub refused: Vec<RefusedRow>,
}

impl Mapping {
    /// Finds the column of each field, and checks the types. `rules` say what becomes of fields that are not columns, and of
    /// nullable columns without a field.
    ///
    /// # Errors
    /// A field does not fit its column or is no column, a name is there twice, or a column without a field is needed.
    pub fn new(schema: &Schema, fields: &SchemaRef, rules: FieldRules) -> Result<Self, MappingError> {
        Self::with_values(schema, fields, rules, std::iter::empty())
    }

    /// As [`new`](Self::new), with values for columns that have no field: all rows get them.
    ///
    /// # Errors
    /// As [`new`](Self::new). A value of another type is not noticed here: its rows are refused.
    pub fn with_values(
        schema: &Schema,
        fields: &SchemaRef,
        rules: FieldRules,
        values: impl IntoIterator<Item = (String, Value)>,
    ) -> Result<Self, MappingError> {
        let error = |column: Option<&str>, problem: String| MappingError {
            table: schema.table_display().to_owned(),
            column: column.map(str::to_owned),
            problem,
        };
        let mut sources: Vec<Option<Source>> = vec![None; schema.columns().len()];
        for (number, field) in fields.fields().iter().enumerate() {
            let (name, ty) = (field.name().as_str(), field.data_type());
            let Some(index) = schema.column_index(name) else {
                if rules.unknown_fields() == UnknownFields::Ignore {
                    continue;
                }
                let known: Vec<&str> = schema.columns().iter().map(|column| column.name()).collect();
                let problem = format!("the field {name:?} is not a column; the columns are {}", known.join(", "));
                return Err(error(Some(name), problem));
            };
            let column = &schema.columns()[index];
            if sources[index].is_some() {
                return Err(error(Some(name), format!("the field {name:?} is there twice; rename one of them")));
            }
            if !fits(ty, column.column_type()) {
                let (expected, remedy) = (column.column_type(), remedy(ty, column.column_type()));
                let problem = format!("column {name:?} expects {expected} but the field is {ty}: {remedy}");
                return Err(error(Some(name), problem));
            }
            sources[index] = Some(Source::Field(number));
        }
        for (column, value) in values {
            if let Some(source @ None) = schema.column_index(&column).map(|index| &mut sources[index]) {
                *source = Some(Source::Value(value));
            }
        }
        for (column, source) in schema.columns().iter().zip(&mut sources).filter(|(_, source)| source.is_none()) {
            let name = column.name();
            match rules.missing_fields() {
                _ if !column.is_nullable() => {
                    return Err(error(Some(name), format!("column {name:?} needs a value, and no field has its name")));
                }
                MissingFields::Null => *source = Some(Source::Value(Value::Null)),
                MissingFields::LeaveOut => {}
                _ => return Err(error(Some(name), format!("column {name:?} has no field; add one"))),
            }
        }
        let columns = schema.columns().iter().zip(&sources);
        let present = columns.filter(|(_, source)| source.is_some()).map(|(column, _)| column.name());
        let schema = schema.with_columns(present).map_err(|problem| error(None, problem.to_string()))?;
        Ok(Self { schema, fields: Arc::clone(fields), sources: sources.into_iter().flatten().collect() })
    }

    /// The table with the columns that rows of the batches have.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Makes rows of a part of a batch. They take as much memory as the part. Rules of a database are checked when the rows are
    /// submitted, except for the elements of lists: see [`rows_for`](Self::rows_for).
    ///
    /// # Errors
    /// The batch has other fields than the mapping.
    ///
    /// # Panics
    /// When the range is not within the batch, or the texts of a column of it take more than 4 GiB.
    pub fn rows(&self, batch: &RecordBatch, range: Range<usize>) -> Result<MappedRows, MappingError> {
        self.rows_for(batch, range, ValueRules::default())
    }

    /// As [`rows`](Self::rows), for a database with these rules ([`BatchSql::value_rules`](batchsql_core::BatchSql::value_rules)):
    /// a list with an element that it cannot hold refuses its row. In the JSON of a list NaN and infinities are texts, which
    /// show no more what they were.
    ///
    /// # Errors
    /// As [`rows`](Self::rows).
    ///
    /// # Panics
    /// As [`rows`](Self::rows).
    pub fn rows_for(
        &self,
        batch: &RecordBatch,
        range: Range<usize>,
        rules: ValueRules,
    ) -> Result<MappedRows, MappingError> {
        self.check(batch)?;
        assert!(range.start <= range.end && range.end <= batch.num_rows(), "rows {range:?} of {}", batch.num_rows());
        let mut refused: Vec<RefusedRow> = Vec::new();
        let mut builder = ColumnBuilder::new(&self.schema, range.len());
        for (index, source) in self.sources.iter().enumerate() {
            let mut column = Copied { schema: &self.schema, index, builder: &mut builder, refused: &mut refused };
            match source {
                Source::Field(number) => column.array(&batch.column(*number).slice(range.start, range.len()), rules),
                Source::Value(value) => (0..range.len()).for_each(|row| column.put(row, Ok(value.as_ref()))),
            }
        }
        let rows = builder.finish().expect("each column has a value for each row");
        if refused.is_empty() {
            return Ok(MappedRows { rows, numbers: range.collect(), refused });
        }
        // Stable, so that the first column of a row is first.
        refused.sort_by_key(|refused| refused.row);
        refused.dedup_by_key(|refused| refused.row);
        let mut left = refused.iter().map(|refused| refused.row).peekable();
        let kept: Vec<u32> =
            (0..range.len()).filter(|row| left.next_if_eq(row).is_none()).map(|row| row as u32).collect();
        let numbers = kept.iter().map(|row| range.start + *row as usize).collect();
        refused.iter_mut().for_each(|refused| refused.row += range.start);
        Ok(MappedRows { rows: rows.rows().gather(&kept), numbers, refused })
    }

    /// A row of a batch as a JSON object, for a person: it shows its values. What cannot be shown is `null`.
    ///
    /// # Panics
    /// When the batch has no such row.
    pub fn text(batch: &RecordBatch, row: usize) -> String {
        row_text(batch, row)
    }

    fn check(&self, batch: &RecordBatch) -> Result<(), MappingError> {
        let fields = batch.schema_ref();
        let is_same = Arc::ptr_eq(fields, &self.fields) || {
            let (ours, theirs) = (self.fields.fields(), fields.fields());
            let mut pairs = ours.iter().zip(theirs);
            ours.len() == theirs.len()
                && pairs.all(|(one, other)| one.name() == other.name() && one.data_type() == other.data_type())
        };
        if is_same {
            return Ok(());
        }
        let problem = "the batch has other fields than those that the mapping was made for; make another mapping";
        Err(MappingError { table: self.schema.table_display().to_owned(), column: None, problem: problem.to_owned() })
    }
}

/// The column that is being copied.
struct Copied<'a> {
    schema: &'a Schema,
    index: usize,
    builder: &'a mut ColumnBuilder,
    refused: &'a mut Vec<RefusedRow>,
}

impl Copied<'_> {
    fn array(&mut self, array: &ArrayRef, rules: ValueRules) {
        let column = &self.schema.columns()[self.index];
        let ty = column.column_type();
        if column.is_nullable() || array.logical_null_count() == 0 {
            let present: Option<Vec<bool>> = array.nulls().map(|nulls| nulls.iter().collect());
            if let Some(values) = slice_of(array, ty) {
                let extended = self.builder.extend(self.index, values, present.as_deref());
                return extended.expect("the mapping has checked the type, and NULL is allowed or not there");
            }
        }
        each(array, ty, rules, &mut |row, value| self.put(row, value));
    }

    fn put(&mut self, row: usize, value: Result<ValueRef<'_>, Problem>) {
        let column = &self.schema.columns()[self.index];
        let refusal = match value {
            Ok(ValueRef::Null) if !column.is_nullable() => Problem::Null.error(self.schema, column),
            Ok(value) => match self.builder.push(self.index, value) {
                Ok(()) => return,
                Err(error) => error,
            },
            Err(problem) => problem.error(self.schema, column),
        };
        self.refused.push(RefusedRow::new(row, refusal));
        // The row is taken out later.
        let placeholder = if column.is_nullable() { ValueRef::Null } else { placeholder(column.column_type()) };
        self.builder.push(self.index, placeholder).expect("a placeholder has the type of its column");
    }
}

/// The values of an array whose memory is that of the column type.
fn slice_of(array: &ArrayRef, ty: ColumnType) -> Option<ColumnValues<'_>> {
    Some(match (array.data_type(), ty) {
        (DataType::Int16, ColumnType::I16) => ColumnValues::I16(array.as_primitive::<Int16Type>().values()),
        (DataType::Int32, ColumnType::I32) => ColumnValues::I32(array.as_primitive::<Int32Type>().values()),
        (DataType::Int64, ColumnType::I64) => ColumnValues::I64(array.as_primitive::<Int64Type>().values()),
        (DataType::UInt64, ColumnType::U64) => ColumnValues::U64(array.as_primitive::<UInt64Type>().values()),
        (DataType::Float32, ColumnType::F32) => ColumnValues::F32(array.as_primitive::<Float32Type>().values()),
        (DataType::Float64, ColumnType::F64) => ColumnValues::F64(array.as_primitive::<Float64Type>().values()),
        _ => return None,
    })
}

fn placeholder(ty: ColumnType) -> ValueRef<'static> {
    match ty {
        ColumnType::Bool => ValueRef::Bool(false),
        ColumnType::I16 => ValueRef::I16(0),
        ColumnType::I32 => ValueRef::I32(0),
        ColumnType::I64 => ValueRef::I64(0),
        ColumnType::U64 => ValueRef::U64(0),
        ColumnType::F32 => ValueRef::F32(0.0),
        ColumnType::F64 => ValueRef::F64(0.0),
        ColumnType::Decimal => ValueRef::Decimal("0"),
        ColumnType::Bytes => ValueRef::Bytes(&[]),
        ColumnType::Uuid => ValueRef::Uuid([0; 16]),
        ColumnType::Json => ValueRef::Json("null"),
        ColumnType::Date => ValueRef::Date(Date::MIN),
        ColumnType::Time => ValueRef::Time(Time::MIN),
        ColumnType::Timestamp => ValueRef::Timestamp(Timestamp::MIN),
        ColumnType::TimestampTz => ValueRef::TimestampTz(TimestampTz::MIN),
        _ => ValueRef::Text(""),
    }
}

/// Shows the table and the fields, never a value.
impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields: Vec<&String> = self.fields.fields().iter().map(|field| field.name()).collect();
        f.debug_struct("Mapping").field("table", self.schema.table()).field("fields", &fields).finish_non_exhaustive()
    }
}
