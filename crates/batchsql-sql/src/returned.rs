//! Owns how the text of a returned value becomes a value of its declared type without loss.
//! Must not know databases or statements.

use batchsql_core::exhaustive::value_of_text;
use batchsql_core::{ColumnType, Value};

use crate::digits::float_of;

/// As [`value_of_text`], but a number becomes a float only if the shortest spelling of the float is the same number: `0.1`, not
/// `12345678901234567890.5`.
pub fn returned_value(ty: ColumnType, text: &str) -> Option<Value> {
    match ty {
        ColumnType::F32 if is_number(text) => float_of(text, &mut String::new()).map(Value::F32),
        ColumnType::F64 if is_number(text) => float_of(text, &mut String::new()).map(Value::F64),
        _ => value_of_text(ty, text),
    }
}

/// Not `NaN` or an infinity.
fn is_number(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_the_numbers_that_were_returned() {
        let f64_of = |text| returned_value(ColumnType::F64, text);
        assert_eq!(f64_of("0.1"), Some(Value::F64(0.1)));
        assert_eq!(f64_of("1e+300"), Some(Value::F64(1e300)));
        assert_eq!(f64_of("-Infinity"), Some(Value::F64(f64::NEG_INFINITY)));
        assert_eq!((f64_of("12345678901234567890.5"), f64_of("9007199254740993"), f64_of("1e400")), (None, None, None));
        let f32_of = |text| returned_value(ColumnType::F32, text);
        assert_eq!(f32_of("0.5"), Some(Value::F32(0.5)));
        assert_eq!((f32_of("1e+300"), f32_of("16777217"), f32_of("x")), (None, None, None));
        assert_eq!(returned_value(ColumnType::I64, "7"), Some(Value::I64(7)));
    }
}
