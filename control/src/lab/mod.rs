//! The lab module.
