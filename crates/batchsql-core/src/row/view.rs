//! Owns how a row of a columnar view is submitted as a row.
//! Must not know who made the view.

use crate::model::batch::RowView;
use crate::model::schema::Schema;
use crate::row::error::RowError;
use crate::row::key::KeyHasher;
use crate::row::traits::Row;
use crate::row::writer::RowWriter;

impl Row for RowView<'_> {
    fn schema(&self) -> &Schema {
        RowView::schema(self)
    }

    fn variable_len(&self) -> usize {
        self.values().map(|value| value.variable_len()).sum()
    }

    fn key_hash(&self) -> u64 {
        let mut hasher = KeyHasher::default();
        RowView::schema(self).key_columns().iter().for_each(|column| hasher.add(self.get(*column)));
        hasher.finish()
    }

    fn write(&self, writer: &mut RowWriter<'_>) -> Result<(), RowError> {
        self.values().try_for_each(|value| writer.value(value))
    }
}
