-- The server's own folder, by which its processes are found when it runs on this machine.
select current_setting('data_directory') as "folder!"
