# check=error=true
FROM base AS Made
# CMD says so
CMD echo x
