-- Whether any partner has its content sealed.
select exists(select from partners where encrypt_content) as "sealed!"
