//! Buffers in host memory, on cache-line boundaries, each behind a lock that only a port ever contends for.
//!
//! Never knows ops.
#![expect(unsafe_code, reason = "zeroed allocation that reports failure")]

use std::alloc::{Layout, alloc_zeroed};
use std::collections::HashMap;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytemuck::{Pod, Zeroable};

use crate::backend::BackendError;
use crate::program::{BufferDecl, BufferId};

#[repr(C, align(64))]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Line([u8; 64]);

/// One buffer.
pub(super) struct Buffer {
    pub(super) decl: BufferDecl,
    lines: RwLock<Vec<Line>>,
}

impl Buffer {
    /// All zeros.
    ///
    /// # Errors
    /// [`BackendError::OutOfMemory`].
    pub(super) fn new(decl: &BufferDecl) -> Result<Self, BackendError> {
        let bytes = decl.rows.checked_mul(decl.cols).and_then(|n| decl.dtype.checked_bytes(n));
        let lines = bytes.and_then(|bytes| zeroed(bytes.div_ceil(size_of::<Line>())));
        let no_room = || BackendError::OutOfMemory { name: decl.name.clone(), bytes: bytes.unwrap_or(usize::MAX) };
        Ok(Self { decl: decl.clone(), lines: RwLock::new(lines.ok_or_else(no_room)?) })
    }

    /// The elements, for reading.
    pub(super) fn read<T: Pod>(&self) -> Read<'_, T> {
        let lines = self.lines.read().unwrap_or_else(PoisonError::into_inner);
        Read { lines, len: self.decl.bytes() / size_of::<T>(), element: PhantomData }
    }

    /// The elements, for writing.
    pub(super) fn write<T: Pod>(&self) -> Write<'_, T> {
        let lines = self.lines.write().unwrap_or_else(PoisonError::into_inner);
        Write { lines, len: self.decl.bytes() / size_of::<T>(), element: PhantomData }
    }
}

fn zeroed(lines: usize) -> Option<Vec<Line>> {
    if lines == 0 {
        return Some(Vec::new());
    }
    let layout = Layout::array::<Line>(lines).ok()?;
    // SAFETY: the layout is not empty.
    let memory = unsafe { alloc_zeroed(layout) }.cast::<Line>();
    if memory.is_null() {
        return None;
    }
    // SAFETY: allocated by the global allocator with the layout of `lines` lines; zeros are a line.
    Some(unsafe { Vec::from_raw_parts(memory, lines, lines) })
}

/// Shared view of a buffer's elements.
pub(super) struct Read<'a, T> {
    lines: RwLockReadGuard<'a, Vec<Line>>,
    len: usize,
    element: PhantomData<T>,
}

impl<T: Pod> Deref for Read<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &bytemuck::cast_slice(self.lines.as_slice())[..self.len]
    }
}

/// Exclusive view of a buffer's elements.
pub(super) struct Write<'a, T> {
    lines: RwLockWriteGuard<'a, Vec<Line>>,
    len: usize,
    element: PhantomData<T>,
}

impl<T: Pod> Deref for Write<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &bytemuck::cast_slice(self.lines.as_slice())[..self.len]
    }
}

impl<T: Pod> DerefMut for Write<'_, T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut bytemuck::cast_slice_mut(self.lines.as_mut_slice())[..self.len]
    }
}

/// The buffers of one program.
#[derive(Clone, Default)]
pub(super) struct Memory {
    by_id: HashMap<BufferId, Arc<Buffer>>,
}

impl Memory {
    pub(super) fn insert(&mut self, id: BufferId, buffer: Arc<Buffer>) {
        self.by_id.insert(id, buffer);
    }

    pub(super) fn find(&self, id: BufferId) -> Option<&Arc<Buffer>> {
        self.by_id.get(&id)
    }

    pub(super) fn buffers(&self) -> impl Iterator<Item = &Arc<Buffer>> {
        self.by_id.values()
    }

    pub(super) fn declarations(&self) -> HashMap<BufferId, BufferDecl> {
        self.by_id.iter().map(|(&id, buffer)| (id, buffer.decl.clone())).collect()
    }

    /// A buffer that compile has found.
    pub(super) fn get(&self, id: BufferId) -> &Buffer {
        self.by_id.get(&id).expect("should have been found when the program was compiled")
    }

    pub(super) fn read<T: Pod>(&self, id: BufferId) -> Read<'_, T> {
        self.get(id).read()
    }

    pub(super) fn write<T: Pod>(&self, id: BufferId) -> Write<'_, T> {
        self.get(id).write()
    }

    pub(super) fn cols(&self, id: BufferId) -> usize {
        self.get(id).decl.cols
    }
}
