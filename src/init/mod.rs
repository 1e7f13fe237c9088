//! What runs inside the clone, in order.
