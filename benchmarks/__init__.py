"""Speed and memory, measured side by side with peers. Each module is a program."""
