"""One module per command of the command line: ``HELP`` (a line), ``options`` (its words), ``run`` (the exit
code). ``words`` has what they share. They load nothing but this until they run."""
