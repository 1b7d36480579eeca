-- Whether any partner has its message content encrypted.
select exists(select from partners where encrypt_content) as "sealed!"
