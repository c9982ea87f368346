//! Import a LUN as a bdev, export a bdev as a LUN.
