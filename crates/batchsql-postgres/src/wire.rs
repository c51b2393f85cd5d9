//! Owns the binary forms in which values are sent.
//! Must not know columns or values.

/// The binary form in which values are sent. Each is a built-in type, so that neither the client nor the server
/// needs a lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    Numeric,
    Text,
    Name,
    Bytea,
    Uuid,
    Json,
    Jsonb,
    /// An array of JSON without arrays or objects in it.
    FlatJsonb,
    /// The same, whose numbers keep their spelling: `jsonb` drops the sign of -0.0.
    FlatJson,
    Date,
    Time,
    Timestamp,
    TimestampTz,
}

impl Wire {
    /// The object ids of the type and of its array type, and its name; fixed in every PostgreSQL (`pg_type.dat`).
    const fn known(self) -> (u32, u32, &'static str) {
        match self {
            Self::Bool => (16, 1000, "bool"),
            Self::Int2 => (21, 1005, "int2"),
            Self::Int4 => (23, 1007, "int4"),
            Self::Int8 => (20, 1016, "int8"),
            Self::Float4 => (700, 1021, "float4"),
            Self::Float8 => (701, 1022, "float8"),
            Self::Numeric => (1700, 1231, "numeric"),
            Self::Text => (25, 1009, "text"),
            Self::Name => (19, 1003, "name"),
            Self::Bytea => (17, 1001, "bytea"),
            Self::Uuid => (2950, 2951, "uuid"),
            Self::Json | Self::FlatJson => (114, 199, "json"),
            Self::Jsonb | Self::FlatJsonb => (3802, 3807, "jsonb"),
            Self::Date => (1082, 1182, "date"),
            Self::Time => (1083, 1183, "time"),
            Self::Timestamp => (1114, 1115, "timestamp"),
            Self::TimestampTz => (1184, 1185, "timestamptz"),
        }
    }

    pub(crate) const fn oid(self) -> u32 {
        self.known().0
    }

    pub(crate) const fn array_oid(self) -> u32 {
        self.known().1
    }

    /// Whether it is an array of JSON without arrays or objects in it.
    pub(crate) const fn is_flat(self) -> bool {
        matches!(self, Self::FlatJsonb | Self::FlatJson)
    }

    /// Whether it is a date or a timestamp, which text may have.
    pub(crate) const fn is_calendar(self) -> bool {
        matches!(self, Self::Date | Self::Timestamp | Self::TimestampTz)
    }

    /// The type's name in SQL, independent of the search path.
    pub(crate) fn sql(self) -> String {
        format!("pg_catalog.{}", self.known().2)
    }
}
