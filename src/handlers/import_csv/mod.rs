//! `import_csv`: rows of a delimited file become accounts or contacts.

pub mod cells;
pub mod content;
pub mod country;
pub mod decode;
pub mod dialect;
pub mod fields;
pub mod issue;
pub mod mapping;
pub mod normalize;
pub mod number;
pub mod payload;
pub mod reader;
pub mod report;
pub mod validate;
