"""How a request is carried: before routing, around its transaction, and the processes behind the port."""
