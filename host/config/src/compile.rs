//! `compile:`: bounds on compiling a filter, which happens before the filter can serve.
//!
//! This module does not know: the compiler.

use std::time::Duration;

use crate::values::HOUR;
use crate::yaml::Section;

/// Bounds on compiling a filter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CompileLimits {
    /// Address space of the compiling process in bytes. Default 2 GiB; 256 MiB to 64 GiB.
    pub memory_bytes: u64,
    /// Processor time of the compiling process; its wall-clock limit is four times as long.
    /// Default 120 s; 1 s to 1 h.
    pub time: Duration,
    /// Functions of a component. Default 50,000; 1 to 1,000,000.
    pub functions: usize,
    /// Bytes of the body of one function. Default 1 MiB; 1 KiB to 64 MiB.
    pub function_bytes: usize,
}

impl Default for CompileLimits {
    fn default() -> Self {
        Self { memory_bytes: 2 << 30, time: Duration::from_secs(120), functions: 50_000, function_bytes: 1 << 20 }
    }
}

impl CompileLimits {
    pub(crate) fn read(section: &Section) -> Self {
        let default = Self::default();
        let memory_bytes = section.size("memory", 256 << 20, 64 << 30);
        Self {
            memory_bytes: memory_bytes.map_or(default.memory_bytes, |bytes| bytes as u64),
            time: section.duration("time", Duration::from_secs(1), HOUR).unwrap_or(default.time),
            functions: section.number("functions", 1, 1_000_000).unwrap_or(default.functions),
            function_bytes: section.size("function_bytes", 1 << 10, 64 << 20).unwrap_or(default.function_bytes),
        }
    }
}
