//! How the code of one of the merged modules is renumbered: its indices become those of the result, and reads of a constant global the constant.
//!
//! Must not know: how the result's indices are chosen (`merge`).

use std::convert::Infallible;

use wasm_encoder::Instruction;
use wasm_encoder::reencode::{self, Reencode, utils};
use wasmparser::Operator;

use super::link::Constant;
use super::merge::NOWHERE;

/// What a module's global became.
#[derive(Clone, Copy)]
pub(super) enum Global {
    Index(u32),
    Constant(Constant),
}

/// A module's indices in the result.
pub(super) struct Indices {
    pub(super) types: Vec<u32>,
    pub(super) functions: Vec<u32>,
    pub(super) globals: Vec<Global>,
    pub(super) tables: Vec<u32>,
    pub(super) first_data: u32,
    /// Data segments that the code refers to, in the order in which they are met.
    pub(super) data: Vec<u32>,
    pub(super) first_element: u32,
}

type Reencoded<T> = Result<T, reencode::Error<Infallible>>;

impl Reencode for Indices {
    type Error = Infallible;

    fn type_index(&mut self, index: u32) -> Reencoded<u32> {
        Ok(self.types[index as usize])
    }

    fn function_index(&mut self, index: u32) -> Reencoded<u32> {
        Ok(self.functions[index as usize])
    }

    fn table_index(&mut self, index: u32) -> Reencoded<u32> {
        Ok(self.tables[index as usize])
    }

    fn memory_index(&mut self, _: u32) -> Reencoded<u32> {
        // There is one memory: `Plan::new` made sure.
        Ok(0)
    }

    fn data_index(&mut self, index: u32) -> Reencoded<u32> {
        let known = self.data.iter().position(|own| *own == index).unwrap_or_else(|| {
            self.data.push(index);
            self.data.len() - 1
        });
        Ok(self.first_data + known as u32)
    }

    fn element_index(&mut self, index: u32) -> Reencoded<u32> {
        Ok(self.first_element + index)
    }

    fn global_index(&mut self, index: u32) -> Reencoded<u32> {
        match self.globals[index as usize] {
            Global::Index(index) => Ok(index),
            // Only reached by a write, and what is written is not folded; the validator would see it.
            Global::Constant(_) => Ok(NOWHERE),
        }
    }

    fn instruction<'i>(&mut self, operator: Operator<'i>) -> Reencoded<Instruction<'i>> {
        if let Operator::GlobalGet { global_index } = operator
            && let Global::Constant(value) = self.globals[global_index as usize]
        {
            return Ok(match value {
                Constant::I32(value) => Instruction::I32Const(value),
                Constant::I64(value) => Instruction::I64Const(value),
            });
        }
        utils::instruction(self, operator)
    }
}
