//! The queue's order.
