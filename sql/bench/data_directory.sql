-- The server's data directory; with it the benchmark finds the server's processes if it runs on the same machine.
select current_setting('data_directory') as "folder!"
