//! Owns how Parquet and Arrow files are read in stripes of rows, and which of their fields are columns.
//! Must not know how rows are written.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_ipc::reader::{FileReader, StreamReader};
use arrow_schema::{ArrowError, SchemaRef};
use batchsql::arrow::Mapping;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::metadata::RowGroupMetaData;

use crate::config::sections::Format;
use crate::load::file::Input;
use crate::load::layout::BLOCK;
use crate::load::stripes::{Records, STRIPE_BYTES, Stripe};
use crate::table::target::Target;

/// What an Arrow file begins with.
const MAGIC: &[u8] = b"ARROW1";
/// What a file of the first Feather version begins with, which nobody writes any more.
const FEATHER1: &[u8] = b"FEA1";

/// Reads rows. `mapped` gets the mapping first, and `next` each stripe, and says whether it wants more. Row groups of a
/// Parquet file that have only rows up to `after` are not read.
///
/// # Errors
/// The file cannot be read, or its fields do not fit the table.
pub(crate) fn rows(
    input: &Input,
    target: &Target,
    after: u64,
    mapped: impl FnOnce(Mapping),
    next: impl FnMut(Stripe) -> bool,
) -> io::Result<u64> {
    let file = File::open(&input.path)?;
    match input.format {
        Format::Parquet => parquet(file, input, target, after, mapped, next),
        _ => arrow(file, input, target, mapped, next),
    }
}

fn parquet(
    file: File,
    input: &Input,
    target: &Target,
    after: u64,
    mapped: impl FnOnce(Mapping),
    next: impl FnMut(Stripe) -> bool,
) -> io::Result<u64> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(damaged)?;
    let fields = Fields::new(target, builder.schema())?;
    mapped(fields.mapping.clone());
    let metadata = Arc::clone(builder.metadata());
    let groups = metadata.row_groups();
    let rows = |group: &RowGroupMetaData| u64::try_from(group.num_rows()).unwrap_or(0);
    let total: u64 = groups.iter().map(rows).sum();
    let (mut skipped, mut wanted) = (0, 0);
    while wanted < groups.len() && skipped + rows(&groups[wanted]) <= after {
        skipped += rows(&groups[wanted]);
        wanted += 1;
    }
    // Rows of one stripe are in memory together.
    let bytes: u64 = groups.iter().map(|group| u64::try_from(group.total_byte_size()).unwrap_or(0)).sum();
    let stripe = (STRIPE_BYTES as u64 / (bytes / total.max(1)).max(1)).clamp(1, BLOCK);
    let projection = ProjectionMask::roots(builder.parquet_schema(), fields.used.iter().copied());
    let reader = builder
        .with_row_groups((wanted..groups.len()).collect())
        .with_projection(projection)
        .with_batch_size(stripe as usize);
    let mut stripes = Stripes { first: skipped + 1, next };
    for batch in reader.build().map_err(damaged)? {
        let done = stripes.first.saturating_sub(1) as f64 / total.max(1) as f64;
        let read = (input.bytes as f64 * done) as u64;
        if !stripes.send(fields.projected(batch.map_err(refused)?)?, read) {
            return Ok(total);
        }
    }
    // The reader ends without an error where the pages of a column end.
    match stripes.first - 1 {
        found if found == total => Ok(total),
        found => {
            let text = format!("its content is not readable: it says that it has {total} rows, but it has {found}");
            Err(io::Error::new(io::ErrorKind::InvalidData, text))
        }
    }
}

fn arrow(
    mut file: File,
    input: &Input,
    target: &Target,
    mapped: impl FnOnce(Mapping),
    next: impl FnMut(Stripe) -> bool,
) -> io::Result<u64> {
    let mut begin = [0; 6];
    let length = read_begin(&mut file, &mut begin)?;
    if begin.starts_with(FEATHER1) {
        return Err(invalid("this is Feather version 1; write it as version 2, which is an Arrow file".to_owned()));
    }
    if length == 0 {
        return Err(invalid("the file is empty: an Arrow file has at least its fields".to_owned()));
    }
    if begin == MAGIC {
        let mut reader = FileReader::try_new(file, None).map_err(refused)?;
        let (schema, parts) = (reader.schema(), reader.num_batches().max(1) as f64);
        let read = move |done: usize, _: &mut FileReader<File>| (input.bytes as f64 * done as f64 / parts) as u64;
        return all(&mut reader, &schema, target, mapped, next, read);
    }
    let from = ToEnd { from: BufReader::with_capacity(1 << 20, file), is_over: false };
    let mut reader = StreamReader::try_new(from, None).map_err(refused)?;
    let schema = reader.schema();
    let read = |_: usize, reader: &mut StreamReader<ToEnd>| reader.get_mut().from.stream_position().unwrap_or(0);
    let rows = all(&mut reader, &schema, target, mapped, next, read)?;
    if reader.get_ref().is_over {
        let text = "its end mark is missing: it was cut off, or whoever wrote it has not closed it; write it anew";
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(rows)
}

/// A file that knows whether more was wanted than it has. A stream that was cut off between two batches ends without an error.
struct ToEnd {
    from: BufReader<File>,
    is_over: bool,
}

impl Read for ToEnd {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.from.read(buffer)?;
        self.is_over = length == 0 && !buffer.is_empty();
        Ok(length)
    }
}

fn all<R: Iterator<Item = Result<RecordBatch, ArrowError>>>(
    reader: &mut R,
    schema: &SchemaRef,
    target: &Target,
    mapped: impl FnOnce(Mapping),
    next: impl FnMut(Stripe) -> bool,
    read: impl Fn(usize, &mut R) -> u64,
) -> io::Result<u64> {
    let fields = Fields::new(target, schema)?;
    mapped(fields.mapping.clone());
    let mut stripes = Stripes { first: 1, next };
    let mut done = 0;
    while let Some(batch) = reader.next() {
        let batch = batch.map_err(refused)?;
        let batch = batch.project(&fields.used).map_err(refused)?;
        done += 1;
        let read = read(done, reader);
        if !stripes.send(fields.projected(batch)?, read) {
            break;
        }
    }
    Ok(stripes.first - 1)
}

fn read_begin(file: &mut File, begin: &mut [u8; 6]) -> io::Result<usize> {
    let mut length = 0;
    while length < begin.len() {
        match file.read(&mut begin[length..])? {
            0 => break,
            more => length += more,
        }
    }
    file.seek(SeekFrom::Start(0))?;
    Ok(length)
}

/// The fields of a file that are columns.
struct Fields {
    /// Their numbers in the file.
    used: Vec<usize>,
    /// With the names of columns.
    schema: SchemaRef,
    mapping: Mapping,
}

impl Fields {
    fn new(target: &Target, file: &SchemaRef) -> io::Result<Self> {
        let is_used = |name: &str| !target.ignores_unknown || target.schema.column_index(target.column(name)).is_some();
        let fields = file.fields().iter().enumerate().filter(|(_, field)| is_used(field.name()));
        if let Some(problem) = fields.clone().find_map(|(_, field)| target.left_out_field(field.name())) {
            return Err(invalid(format!("the file {problem}")));
        }
        let (used, fields): (Vec<usize>, Vec<_>) = fields
            .map(|(number, field)| {
                let column = target.column(field.name()).to_owned();
                (number, field.as_ref().clone().with_name(column))
            })
            .unzip();
        let schema: SchemaRef = Arc::new(arrow_schema::Schema::new(fields));
        let mapping = target.mapping(&schema).map_err(invalid)?;
        Ok(Self { used, schema, mapping })
    }

    /// A batch of the used fields, with the names of their columns.
    fn projected(&self, batch: RecordBatch) -> io::Result<RecordBatch> {
        let rows = arrow_array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), batch.columns().to_vec(), &rows).map_err(refused)
    }
}

/// Sends batches in stripes.
struct Stripes<N> {
    /// The number of the next row.
    first: u64,
    next: N,
}

impl<N: FnMut(Stripe) -> bool> Stripes<N> {
    fn send(&mut self, batch: RecordBatch, read: u64) -> bool {
        let row_bytes = bytes(&batch) / batch.num_rows().max(1);
        let most = (STRIPE_BYTES / row_bytes.max(1)).max(1);
        let mut begin = 0;
        while begin < batch.num_rows() {
            let first = self.first;
            let of_block = (BLOCK - (first - 1) % BLOCK) as usize;
            let part = batch.slice(begin, most.min(of_block).min(batch.num_rows() - begin));
            begin += part.num_rows();
            self.first += part.num_rows() as u64;
            if !(self.next)(Stripe { first, records: Records::Rows(part), read }) {
                return false;
            }
        }
        true
    }
}

/// The bytes of the buffers of a batch. Not their capacity: the arrays of an Arrow file are parts of one allocation, which would
/// count for each of them.
fn bytes(batch: &RecordBatch) -> usize {
    let mut left: Vec<_> = batch.columns().iter().map(|column| column.to_data()).collect();
    let mut bytes = 0;
    while let Some(array) = left.pop() {
        let nulls = array.nulls().map_or(0, |nulls| nulls.buffer().len());
        bytes += nulls + array.buffers().iter().map(|buffer| buffer.len()).sum::<usize>();
        left.extend_from_slice(array.child_data());
    }
    bytes
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

/// Errors of the system are passed on, so that it is known that the content is not at fault.
fn damaged(error: parquet::errors::ParquetError) -> io::Error {
    match error {
        parquet::errors::ParquetError::External(source) => match source.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(other) => {
                io::Error::new(io::ErrorKind::InvalidData, format!("it is not a readable Parquet file: {other}"))
            }
        },
        other => io::Error::new(io::ErrorKind::InvalidData, format!("it is not a readable Parquet file: {other}")),
    }
}

fn refused(error: ArrowError) -> io::Error {
    match error {
        ArrowError::IoError(_, error) if error.raw_os_error().is_some() => error,
        other => io::Error::new(io::ErrorKind::InvalidData, format!("its content is not readable: {other}")),
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::{ArrayRef, Int64Array, StringViewArray};
    use arrow_ipc::writer::{FileWriter, StreamWriter};
    use batchsql::{ColumnType, FieldRules};
    use parquet::arrow::ArrowWriter;
    use parquet::file::metadata::{ParquetMetaDataReader, ParquetMetaDataWriter};

    use super::*;
    use crate::table::record::tests::orders;

    /// The lengths of the stripes of an Arrow file with these columns, which have the names `c0` and so on.
    fn stripes(ty: ColumnType, columns: Vec<ArrayRef>) -> Vec<usize> {
        let names = (0..columns.len()).map(|number| format!("c{number}"));
        let batch = RecordBatch::try_from_iter(names.clone().zip(columns)).unwrap();
        let mut target = orders(FieldRules::default());
        let table = batchsql::Schema::builder("t").nullable("region", ColumnType::Text);
        let table = names.fold(table, |table, name| table.nullable(name, ty));
        target.schema = table.build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.arrow");
        let mut writer = FileWriter::try_new(File::create(&path).unwrap(), batch.schema_ref()).unwrap();
        writer.write(&batch).unwrap();
        writer.finish().unwrap();
        let mut found = Vec::new();
        let total = rows(&Input::open(&path, None, |_| {}).unwrap(), &target, 0, drop, |stripe| {
            found.push(stripe.len());
            true
        });
        assert_eq!(total.unwrap(), batch.num_rows() as u64);
        found
    }

    /// Many columns do not make many small stripes, each of which is a transaction.
    #[test]
    fn a_stripe_is_as_long_as_its_rows_allow() {
        let numbers: Vec<ArrayRef> =
            (0..60).map(|_| Arc::new((0..8_000).map(Some).collect::<Int64Array>()) as ArrayRef).collect();
        assert_eq!(stripes(ColumnType::I64, numbers), [8_000]);
        let texts: Vec<ArrayRef> = (0..10)
            .map(|_| {
                Arc::new((0..5_000).map(|id| Some(format!("a text of some length {id}"))).collect::<StringViewArray>())
            })
            .map(|array| array as ArrayRef)
            .collect();
        assert_eq!(stripes(ColumnType::Text, texts), [5_000]);
        let long: ArrayRef =
            Arc::new((0..100).map(|_| Some("x".repeat(STRIPE_BYTES / 50))).collect::<StringViewArray>());
        let long = stripes(ColumnType::Text, vec![long]);
        assert!((2..=4).contains(&long.len()), "{long:?}");
    }

    /// All writers end a stream with a mark, so rows may be missing without it.
    #[test]
    fn a_stream_without_its_end_is_damaged() {
        let ids: ArrayRef = Arc::new((0..100).map(Some).collect::<Int64Array>());
        let batch = RecordBatch::try_from_iter([("id", ids)]).unwrap();
        let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
        let mut ends = Vec::new();
        for _ in 0..3 {
            writer.write(&batch).unwrap();
            ends.push(writer.get_ref().len());
        }
        writer.finish().unwrap();
        let whole = writer.into_inner().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.arrow");
        let rows_of = |length: usize, most: usize| {
            std::fs::write(&path, &whole[..length]).unwrap();
            let (mut found, target) = (0, orders(FieldRules::default()));
            let result = rows(&Input::open(&path, None, |_| {}).unwrap(), &target, 0, drop, |stripe| {
                found += stripe.len();
                found < most
            });
            (found, result.map_err(|error| (error.kind(), error.to_string())))
        };
        assert_eq!(rows_of(whole.len(), usize::MAX), (300, Ok(300)));
        for (length, most_rows) in [(ends[1], 200), (ends[2], 300), (ends[2] + 2, 300)] {
            let (found, result) = rows_of(length, usize::MAX);
            let (kind, text) = result.unwrap_err();
            assert_eq!((found, kind), (most_rows, io::ErrorKind::InvalidData));
            assert!(text.contains("end mark is missing"), "{text}");
        }
        // Whoever looks only at its begin needs no end.
        assert_eq!(rows_of(ends[1], 1).0, 100);
        assert!(rows_of(ends[1], 1).1.is_ok());
    }

    /// Rows that the file says it has, and has not, are not told as loaded.
    #[test]
    fn a_parquet_file_with_fewer_rows_than_it_says_is_damaged() {
        let ids: ArrayRef = Arc::new((0..100).map(Some).collect::<Int64Array>());
        let batch = RecordBatch::try_from_iter([("id", ids)]).unwrap();
        let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        let file = writer.into_inner().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        std::fs::write(&path, &file).unwrap();
        let metadata = ParquetMetaDataReader::new().parse_and_finish(&File::open(&path).unwrap()).unwrap();
        let more = |group: &RowGroupMetaData| group.clone().into_builder().set_num_rows(110).build().unwrap();
        let groups = metadata.row_groups().iter().map(more).collect();
        let metadata = metadata.into_builder().set_row_groups(groups).build();
        let footer = u32::from_le_bytes(file[file.len() - 8..file.len() - 4].try_into().unwrap()) as usize;
        let mut damaged = file[..file.len() - 8 - footer].to_vec();
        ParquetMetaDataWriter::new(&mut damaged, &metadata).finish().unwrap();
        std::fs::write(&path, &damaged).unwrap();
        let mut found = 0;
        let result =
            rows(&Input::open(&path, None, |_| {}).unwrap(), &orders(FieldRules::default()), 0, drop, |stripe| {
                found += stripe.len();
                true
            });
        assert!(result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::InvalidData), "{found}: {result:?}");
    }
}
