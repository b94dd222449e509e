"""What a process finds on its machine, whatever it computes: the cache folder, files, threads, forks, memory."""
