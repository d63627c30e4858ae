//! Rings over plain memory, with the kernel played by the other side.
