//! The TDX application binary interface: leaf numbers, operand ids and completion statuses (architecture.md §7).
