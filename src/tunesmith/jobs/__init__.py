"""Jobs: the state object, the relay of its outbox, the reconciler, the worker's side and the consumer loop."""
