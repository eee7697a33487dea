//! Checks a program against the declarations of its buffers, so that kernels never meet a wrong shape.
//!
//! Used by every backend at compile; never runs anything.

mod shapes;

use std::collections::{HashMap, HashSet};

use super::control::Bounds;
use super::{BackendError, refusals};
use crate::ops::Op;
use crate::program::{BufferDecl, BufferId, BufferKind, Dtype, Program, View};

/// What a checked program touches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checked {
    pub(crate) bounds: Bounds,
    pub(crate) buffers: HashSet<BufferId>,
    pub(crate) written: HashSet<BufferId>,
}

/// # Errors
/// [`BackendError::Unsupported`] by the refusal table, [`BackendError::Misuse`] for anything else; both name the op.
pub(crate) fn check(
    backend: &'static str,
    program: &Program,
    declared: &HashMap<BufferId, BufferDecl>,
) -> Result<Checked, BackendError> {
    let bounds = Bounds { bucket: program.bucket, vocabulary: None, sampled: None, slots: None };
    let checked = Checked { bounds, buffers: HashSet::new(), written: HashSet::new() };
    let mut checker = Checker { backend, declared, op: "", touched: Vec::new(), checked };
    for step in &program.steps {
        checker.step(&step.op)?;
    }
    Ok(checker.checked)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Write,
    /// Reads and writes in place.
    Update,
}

struct Checker<'a> {
    backend: &'static str,
    declared: &'a HashMap<BufferId, BufferDecl>,
    op: &'static str,
    touched: Vec<(BufferId, Access)>,
    checked: Checked,
}

impl<'a> Checker<'a> {
    fn step(&mut self, op: &Op) -> Result<(), BackendError> {
        self.op = op.name();
        self.touched.clear();
        self.shapes(op)?;
        for (index, &(id, access)) in self.touched.iter().enumerate() {
            let alias = self.touched[..index].iter().find(|&&(other, other_access)| {
                other == id && (access == Access::Write || other_access == Access::Write)
            });
            if alias.is_some() {
                return self.misuse(format!("{} is an output and also something else", self.declared[&id].name));
            }
            self.checked.buffers.insert(id);
            if access != Access::Read {
                self.checked.written.insert(id);
            }
        }
        Ok(())
    }

    fn misuse<T>(&self, message: String) -> Result<T, BackendError> {
        Err(BackendError::Misuse(format!("{}: {message}", self.op)))
    }

    fn rows(&self) -> usize {
        self.checked.bounds.bucket.rows
    }

    fn samples(&self) -> usize {
        self.checked.bounds.bucket.samples
    }

    fn declaration(&self, id: BufferId) -> Result<&'a BufferDecl, BackendError> {
        self.declared.get(&id).map_or_else(|| self.misuse(format!("buffer {} is not allocated", id.0)), Ok)
    }

    /// Whether `kind` may be touched so; caches are written by `append_kv` only.
    fn touch(&mut self, id: BufferId, access: Access) -> Result<&'a BufferDecl, BackendError> {
        let decl = self.declaration(id)?;
        let writable = match decl.kind {
            BufferKind::Scratch | BufferKind::State | BufferKind::PortOut => true,
            BufferKind::Kv => self.op == "append_kv",
            BufferKind::Weight | BufferKind::PortIn => false,
        };
        if access != Access::Read && !writable {
            return self.misuse(format!("{} is of kind {:?} and cannot be written", decl.name, decl.kind));
        }
        self.touched.push((id, access));
        Ok(decl)
    }

    /// At least `rows` rows of exactly `cols` elements.
    fn table(
        &mut self,
        id: BufferId,
        dtype: Dtype,
        shape: (usize, usize),
        access: Access,
    ) -> Result<&'a BufferDecl, BackendError> {
        let decl = self.touch(id, access)?;
        if decl.dtype != dtype || decl.rows < shape.0 || decl.cols != shape.1 {
            let (rows, cols) = shape;
            let is = (decl.dtype, decl.rows, decl.cols);
            return self.misuse(format!("{} is {is:?}; needed: {dtype:?}, ≥ {rows} rows, {cols} columns", decl.name));
        }
        Ok(decl)
    }

    /// The companion of an E4M3 weight has a scale for each of its tiles.
    fn scales(&mut self, weight: &BufferDecl) -> Result<(), BackendError> {
        let Some(scales) = weight.scales else { return Ok(()) };
        if weight.dtype != Dtype::E4m3 || scales.rows == 0 {
            return self.misuse(format!("{} is {:?} and cannot have tile scales", weight.name, weight.dtype));
        }
        let decl = self.touch(scales.buffer, Access::Read)?;
        let shape = scales.shape(weight.rows, weight.cols);
        let known = matches!(decl.dtype, Dtype::F32 | Dtype::Bf16 | Dtype::F16 | Dtype::E8m0);
        if !known || decl.kind != BufferKind::Weight || (decl.rows, decl.cols) != shape {
            let is = (decl.kind, decl.dtype, decl.rows, decl.cols);
            return self.misuse(format!("{} is {is:?}; needed: a weight of {shape:?} scales", decl.name));
        }
        Ok(())
    }

    /// A weight of at least `rows` rows of exactly `cols` elements in a format that is not refused.
    fn weight(&mut self, id: BufferId, rows: usize, cols: usize) -> Result<&'a BufferDecl, BackendError> {
        let decl = self.touch(id, Access::Read)?;
        self.refuse(decl.dtype)?;
        if decl.kind != BufferKind::Weight || decl.rows < rows || decl.cols != cols {
            let is = (decl.kind, decl.rows, decl.cols);
            return self.misuse(format!("{} is {is:?}; needed: a weight of ≥ {rows} × {cols}", decl.name));
        }
        if decl.dtype.checked_bytes(decl.cols).is_none() {
            let block = decl.dtype.block().0;
            return self.misuse(format!("{} has {cols} columns, which are no whole blocks of {block}", decl.name));
        }
        self.scales(decl)?;
        Ok(decl)
    }

    /// A weight of at least `rows` rows of exactly `cols` plain numbers: a bias, or sinks.
    fn plain(&mut self, id: BufferId, rows: usize, cols: usize) -> Result<&'a BufferDecl, BackendError> {
        let decl = self.touch(id, Access::Read)?;
        let fits = decl.kind == BufferKind::Weight && decl.rows >= rows && decl.cols == cols;
        if !fits || !matches!(decl.dtype, Dtype::F32 | Dtype::Bf16 | Dtype::F16) {
            let is = (decl.kind, decl.dtype, decl.rows, decl.cols);
            let needed = format!("a weight of ≥ {rows} × {cols} in F32, BF16 or F16");
            return self.misuse(format!("{} is {is:?}; needed: {needed}", decl.name));
        }
        Ok(decl)
    }

    fn refuse(&self, dtype: Dtype) -> Result<(), BackendError> {
        match refusals::reason(self.backend, self.op, dtype) {
            Some(reason) => {
                Err(BackendError::Unsupported { backend: self.backend, op: self.op, reason: reason.to_owned() })
            }
            None => Ok(()),
        }
    }

    /// An F32 view with `groups` runs of `width` over at least `rows` rows.
    fn view(
        &mut self,
        view: View,
        shape: (usize, usize, usize),
        access: Access,
    ) -> Result<&'a BufferDecl, BackendError> {
        let (rows, groups, width) = shape;
        let decl = self.touch(view.buffer, access)?;
        let end = view.offset + view.groups.saturating_sub(1) * view.stride + view.width;
        let apart = view.groups == 1 || view.stride >= view.width;
        if decl.dtype != Dtype::F32 || decl.rows < rows || end > decl.cols || !apart {
            return self.misuse(format!("{view:?} does not fit {} of {} × {}", decl.name, decl.rows, decl.cols));
        }
        if (view.groups, view.width) != (groups, width) || groups == 0 || width == 0 {
            return self.misuse(format!("{view:?} of {} should be {groups} runs of {width}", decl.name));
        }
        Ok(decl)
    }
}
