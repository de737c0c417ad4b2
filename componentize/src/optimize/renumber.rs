//! Renumbers the code of one of the merged modules.
//!
//! Indices become those of the result, and a read of a constant global becomes the constant.
//! This module does not know: how the indices of the result are chosen (`merge`).

use std::convert::Infallible;

use wasm_encoder::Instruction;
use wasm_encoder::reencode::{self, Reencode, utils};
use wasmparser::Operator;

use super::link::Constant;

/// An index that the result does not have. The validator refuses code that uses it.
pub(super) const UNUSED: u32 = u32::MAX;

/// What becomes of a global of the module.
#[derive(Clone, Copy)]
pub(super) enum Global {
    Index(u32),
    Constant(Constant),
}

/// The indices of a module's items in the result.
pub(super) struct Indices {
    pub(super) types: Vec<u32>,
    pub(super) functions: Vec<u32>,
    pub(super) globals: Vec<Global>,
    pub(super) tables: Vec<u32>,
    pub(super) first_data: u32,
    /// Data segments that the code names, in the order of their first use.
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
        // The result has one memory; `Plan::new` checks this.
        Ok(0)
    }

    fn data_index(&mut self, index: u32) -> Reencoded<u32> {
        let position = self.data.iter().position(|known| *known == index).unwrap_or_else(|| {
            self.data.push(index);
            self.data.len() - 1
        });
        Ok(self.first_data + position as u32)
    }

    fn element_index(&mut self, index: u32) -> Reencoded<u32> {
        Ok(self.first_element + index)
    }

    fn global_index(&mut self, index: u32) -> Reencoded<u32> {
        match self.globals[index as usize] {
            Global::Index(index) => Ok(index),
            // Only a write gets here, and a written global is never a constant.
            Global::Constant(_) => Ok(UNUSED),
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
