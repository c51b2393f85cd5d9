//! The schedule without tasks that write.
